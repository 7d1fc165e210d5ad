// One message as an element.
//
// Next: menu.ts.
import { avatar, button, clock, day, make, said } from "./dom";
import type { Actions, FileView, Line } from "./shapes";

export interface Hooks { actions: Actions; menu(line: Line, from: HTMLElement): void; anew(line: Line): void; wide(key: string): boolean; widen(key: string): void; drawn(element: HTMLElement): void }

/** Longer than this, a text is cut until asked for. */
const LONG_CHARS = 1_200;
const LONG_LINES = 18;
const TICKS = { sending: ["◷", "Sending"], failed: ["!", "Not sent"], sent: ["✓", "Sent"], delivered: ["✓✓", "Delivered"], read: ["✓✓", "Read"] } as const;

export function drawLine(line: Line, hooks: Hooks): HTMLElement {
  const { kind, seq, text } = line;
  if (kind === "day") return make("li", "system day", day(line.at));
  if (kind === "new") return make("li", "system new", text);
  const element = kind === "system" ? said("li", "system", text) : message(line, hooks);
  element.tabIndex = -1;
  if (seq) element.dataset.seq = String(seq);
  hooks.drawn(element);
  return element;
}

function message(line: Line, hooks: Hooks): HTMLElement {
  const { kind, author, at, edited, first, named, deleted, pinned, big, folded, seq } = line;
  const { actions } = hooks;
  const bubble = make("div", "bubble", said("b", "author", author), quoted(line, actions), attached(line, actions), line.text ? body(line, hooks) : undefined, foot());
  const element = make("li", [kind, first && "first", named && "named", deleted && "deleted", big && "big", line.state === "failed" && "failed"].filter(Boolean).join(" "));
  element.append(avatar(author), make("div", "stack", folded ? fold(bubble) : bubble, marks(line, actions), refused(line, hooks)));
  if (!seq || deleted) return element;
  const more = button("plain icon more", `Menu of the message of ${author}`, () => hooks.menu(line, more), "⋯");
  Object.assign(more, { ariaHasPopup: "menu", tabIndex: -1 }).dataset.focus = "more";
  element.append(more);
  element.oncontextmenu = (event) => {
    // A link has a menu of its own, and what is selected wants to be copied.
    if ((event.target as Element).closest("a") || String(getSelection())) return;
    event.preventDefault();
    hooks.menu(line, more);
  };
  return element;

  function foot(): HTMLElement {
    const when = Object.assign(make("time", "", clock(at)), { dateTime: at, title: new Date(at).toLocaleString() });
    return make("small", "foot", pinned ? make("span", "pinned", "pinned") : undefined, edited ? make("span", "edited", "edited") : undefined, when, tick(line));
  }
}

function labelled(className: string, text: string, label: string): HTMLElement {
  const element = make("span", className, text);
  element.title = label;
  element.role = "img";
  element.ariaLabel = label;
  return element;
}

function tick({ kind, state, hint }: Line): HTMLElement | undefined {
  if (kind !== "mine" || !state) return undefined;
  const [text, label] = TICKS[state];
  const element = labelled(`tick ${state}`, text, hint ?? label);
  element.dataset.state = state;
  return element;
}

function body(line: Line, { wide, widen }: Hooks): HTMLElement {
  const element = said("p", "text", ...(line.parts ?? [{ kind: "text" as const, text: line.text }]).map(({ kind, text, href }): Node | string => {
    if (kind === "name") return make("span", "name", text);
    if (kind !== "link" || !href) return text;
    return Object.assign(make("a", "", text), { href, target: "_blank", rel: "noopener noreferrer nofollow" });
  }));
  const isLong = line.text.length > LONG_CHARS || line.text.split("\n").length > LONG_LINES;
  if (!isLong || wide(line.key)) return element;
  element.classList.add("long");
  const all = button("plain link", "Show all of it", () => {
    widen(line.key);
    element.classList.remove("long");
    all.remove();
  });
  return make("div", "", element, all);
}

const size = (bytes: number) => (bytes < 1_000_000 ? `${Math.max(1, Math.round(bytes / 1_000))} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`);

function attached({ files = [] }: Line, { fileUrl }: Actions): HTMLElement | undefined {
  if (!files.length) return undefined;
  const url = (file: FileView, fresh?: boolean) => fileUrl(file.room_id, file.upload_id, fresh);
  return make("div", "files", ...files.map((file) => (file.kind === "image" ? picture(file, url) : file.kind === "voice" ? player(file, url) : link(file, url))));
}

type Url = (file: FileView, fresh?: boolean) => Promise<string>;

function picture(file: FileView, url: Url): HTMLElement {
  const { name, width, height, placeholder = "" } = file;
  const image = Object.assign(make("img", ""), { alt: name, decoding: "async" as const });
  // Its place is kept until it is there.
  if (width && height) Object.assign(image, { width, height }), image.style.setProperty("aspect-ratio", `${width} / ${height}`);
  if (/^#[0-9a-f]{6}$/.test(placeholder)) image.style.setProperty("background", placeholder);
  const frame = Object.assign(make("a", "picture", image), { target: "_blank", rel: "noopener noreferrer" });
  const load = (fresh: boolean) => void url(file, fresh).then((at) => (image.src = frame.href = at));
  // Its address may have ended meanwhile.
  image.onerror = () => ((image.onerror = null), load(true));
  load(false);
  return frame;
}

function player(file: FileView, url: Url): HTMLElement {
  const audio = Object.assign(make("audio", ""), { controls: true, preload: "none" as const });
  audio.onerror = () => ((audio.onerror = null), void url(file, true).then((at) => (audio.src = at)));
  void url(file).then((at) => (audio.src = at));
  const seconds = Math.round((file.duration_ms ?? 0) / 1_000);
  audio.ariaLabel = `Voice note, ${seconds} seconds`;
  return make("div", "voice", audio, file.duration_ms ? make("small", "quiet", `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`) : undefined);
}

function link(file: FileView, url: Url): HTMLElement {
  const element = Object.assign(make("a", "file", said("span", "", file.name), make("small", "", size(file.size))), { href: "#", target: "_blank", rel: "noopener noreferrer" });
  // Asked for when it is wanted: an address is good for a while only.
  element.onclick = (event) => {
    event.preventDefault();
    void url(file).then((at) => window.open(at, "_blank", "noopener"));
  };
  return element;
}

function quoted({ quote }: Line, actions: Actions): HTMLElement | undefined {
  if (!quote) return undefined;
  const element = button("quote", `In reply to ${quote.author}: ${quote.text}`, () => actions.jump(quote.seq), said("b", "", quote.author), said("span", "", quote.text));
  element.dataset.focus = "quote";
  return element;
}

function marks({ marks: all = [], seq = 0 }: Line, actions: Actions): HTMLElement | undefined {
  if (!all.length) return undefined;
  return make("div", "marks", ...all.map(({ emoji, count, mine }) => {
    const mark = button(mine ? "mark own" : "mark", `${emoji} ${count}, ${mine ? "take yours back" : "add yours"}`, () => actions.react(seq, emoji, !mine), emoji, make("span", "", String(count)));
    mark.ariaPressed = String(mine);
    mark.dataset.focus = emoji;
    return mark;
  }));
}

function refused(line: Line, { actions, anew }: Hooks): HTMLElement | undefined {
  const { error, unsent, op, text } = line;
  if (!error) return undefined;
  const again = () => (unsent ? actions.retry(unsent) : op !== undefined && actions.retryOp(op, true));
  const away = () => (unsent ? actions.discard(unsent) : op !== undefined && actions.retryOp(op, false));
  // Its words are not lost with a file that will never be taken.
  const words = unsent && text ? button("plain link", "Write anew", () => anew(line)) : undefined;
  return make("p", "refused", `${error} `, button("plain link", "Try again", again), words, button("plain link", "Discard", away));
}

function fold(bubble: HTMLElement): HTMLElement {
  return make("details", "folded", make("summary", "quiet", "Message of somebody you blocked"), bubble);
}
