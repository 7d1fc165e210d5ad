// Text of people, cut into what is shown of it: words, links, names. It never becomes markup.
export interface Part { kind: "text" | "link" | "name"; text: string; href?: string }

const LINK = /\b(?:https?:\/\/|www\.)[^\s<>"'`]+/giu;
/** What ends a sentence rather than an address. */
const AFTER = /[.,;:!?…'"»”’*_~]+$/u;
const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\s)+$/u;
const PICTURE = /\p{Extended_Pictographic}|\p{Regional_Indicator}/u;
const BIG_MAX = 3;

/** The words of a text; `names` are those it mentions, each written as @name. */
export function parts(text: string, names: string[] = []): Part[] {
  const all: Part[] = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const link = trimmed(match[0]);
    const href = address(link);
    if (!href) continue;
    all.push(...named(text.slice(end, match.index), names), { kind: "link", text: link, href });
    end = match.index + link.length;
  }
  return [...all, ...named(text.slice(end), names)];
}

/** Without the punctuation that follows, and without a bracket that was opened before. */
function trimmed(link: string): string {
  for (;;) {
    const shorter = link.replace(AFTER, "");
    const last = shorter.at(-1) ?? "";
    const opener = { ")": "(", "]": "[", "}": "{" }[last];
    const isUnmatched = opener !== undefined && shorter.split(opener).length < shorter.split(last).length;
    if (!isUnmatched && shorter === link) return link;
    link = isUnmatched ? shorter.slice(0, -1) : shorter;
  }
}

/** Only where a browser may go by itself: never a script, never a name and password before the host. */
function address(link: string): string | undefined {
  try {
    const url = new URL(/^www\./i.test(link) ? `https://${link}` : link);
    return /^https?:$/.test(url.protocol) && !url.username && !url.password && url.hostname.includes(".") ? url.href : local(url);
  } catch {
    return undefined;
  }
}

const local = (url: URL) => (url.hostname === "localhost" && !url.username && !url.password ? url.href : undefined);

function named(text: string, names: string[]): Part[] {
  const words = names.map((name) => `@${name}`).sort((one, other) => other.length - one.length);
  const all: Part[] = [];
  let plain = "";
  for (let at = 0; at < text.length; ) {
    const word = text[at] === "@" ? words.find((one) => text.startsWith(one, at)) : undefined;
    if (!word) {
      plain += text[at++];
      continue;
    }
    if (plain) all.push({ kind: "text", text: plain });
    plain = "";
    all.push({ kind: "name", text: word });
    at += word.length;
  }
  return plain ? [...all, { kind: "text", text: plain }] : all;
}

/** One to three emojis and nothing else. */
export function isBig(text: string): boolean {
  if (text.length > 40 || /[\d#*]/.test(text) || !EMOJI_ONLY.test(text) || !PICTURE.test(text)) return false;
  return [...new Intl.Segmenter().segment(text)].filter(({ segment }) => segment.trim()).length <= BIG_MAX;
}

/** What of `named` the text still says: who was chosen from the list and then deleted is not meant. */
export const mentioned = (text: string, chosen: ReadonlyMap<string, string>): string[] =>
  [...new Set([...chosen].filter(([name]) => parts(text, [name]).some(({ kind }) => kind === "name")).map(([, id]) => id))];

/** The name that is being written after an @, before `caret`, and where it begins. */
export function asked(text: string, caret: number): { at: number; prefix: string } | undefined {
  const match = /(?:^|[\s(])@([\p{L}\p{N}_.-]{0,30})$/u.exec(text.slice(0, caret));
  return match ? { at: caret - (match[1] ?? "").length - 1, prefix: match[1] ?? "" } : undefined;
}
