// Draws a view and tells what the user did. Knows nothing of the protocol and keeps nothing but elements
// and where one reads: an element lives as long as what it shows, so that no selection is lost.
//
// Next: lines.ts.
import { compose } from "./composer";
import { avatar, button, clock, day, get, make, said, sync } from "./dom";
import { drawLine, type Hooks } from "./lines";
import { openMenu, openPicker, type Item } from "./menu";
import { panels } from "./panels";
import type { Actions, Line, Row, View } from "./shapes";

/** An older page is fetched before the upper end is reached; near the lower end new messages are followed. */
const NEAR_TOP_PX = 400;
const NEAR_END_PX = 60;
/** Of a message that is higher than the window this much of the window is enough. */
const SEEN_PART = 0.5;
const FLASH_MS = 1_500;
/** Rooms that are listed before one asks for more of them. */
const ROWS = 200;

/** Binds the page to `actions`; the function that is returned draws. */
export function mount(actions: Actions): (view: View) => void {
  const messages = get("messages");
  const wide = new Set<string>();
  const visible = new Set<Element>();
  let shown: View | undefined;
  let [open, placed, focusKey, announced, rows] = ["", false, "", 0, ROWS];

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting, intersectionRatio, intersectionRect, rootBounds } of entries) {
      const isSeen = isIntersecting && (intersectionRatio >= SEEN_PART || intersectionRect.height >= (rootBounds?.height ?? 0) * SEEN_PART);
      if (isSeen) visible.add(target);
      else visible.delete(target);
    }
    reportSeen();
  }, { root: messages, threshold: [0, 0.1, 0.25, SEEN_PART, 1] });

  function reportSeen(): void {
    for (const one of visible) if (!one.isConnected) visible.delete(one), watcher.unobserve(one);
    const seqs = [...visible].map((one) => Number((one as HTMLElement).dataset.seq ?? 0));
    if (seqs.length && !document.hidden) actions.seen(Math.max(...seqs));
  }

  const lineOf = (element: Element | null): Line | undefined => shown?.lines.find(({ key }) => key === (element as HTMLElement | null)?.dataset.key);
  const composer = compose(actions, () => shown?.lines.filter(({ can }) => can?.edit).at(-1));
  const drawPanels = panels(actions);
  const hooks: Hooks = { actions, menu, anew, wide: (key) => wide.has(key), widen: (key) => void wide.add(key), drawn: (element) => watcher.observe(element) };

  function anew(line: Line): void {
    composer.anew(line, line.quote && shown?.lines.find(({ seq }) => seq === line.quote?.seq));
    if (line.unsent) actions.discard(line.unsent);
  }

  function menu(line: Line, from: HTMLElement): void {
    const { seq, can, text, pinned } = line;
    if (!seq || !can) return;
    const items: (Item | false)[] = [
      { label: "Reply", act: () => composer.reply(line) },
      can.edit && { label: "Edit", act: () => composer.edit(line) },
      // Not there where the page did not come by https.
      "clipboard" in navigator && { label: "Copy the text", act: () => void navigator.clipboard.writeText(text) },
      can.pin && { label: pinned ? "Unpin" : "Pin", act: () => actions.pin(seq, !pinned) },
      can.report && { label: "Report", sure: "Really report it?", act: () => actions.report(seq) },
      can.remove && { label: "Delete", sure: "Really delete it?", danger: true, act: () => actions.remove(seq) },
    ];
    openMenu(from, items.filter((item) => item !== false), react(line));
  }

  const react = (line: Line) => (emoji: string) => actions.react(line.seq ?? 0, emoji, !line.marks?.some((mark) => mark.emoji === emoji && mark.mine));

  messages.onkeydown = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const all = [...messages.children].filter((one): one is HTMLElement => one instanceof HTMLElement && one.dataset.seq !== undefined);
    const current = document.activeElement?.closest<HTMLElement>("#messages > li");
    const at = current ? all.indexOf(current) : all.length;
    const next = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      const to = all[Math.min(all.length - 1, Math.max(0, next))];
      if (to) rove(to), to.focus(), to.scrollIntoView({ block: "nearest" });
      return;
    }
    const line = lineOf(current ?? null);
    if (!current || event.target !== current || !line?.seq || !line.can) return;
    const { can, seq, pinned } = line;
    const keys: Record<string, (() => void) | false> = {
      Enter: () => menu(line, current), r: () => composer.reply(line), e: can.edit && (() => composer.edit(line)), p: can.pin && (() => actions.pin(seq, !pinned)),
      "+": () => openPicker(current, react(line)), Delete: can.remove && (() => menu(line, current)),
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  /** One message is in the order of the Tab key: the last that had the focus. */
  function rove(to: HTMLElement): void {
    for (const one of messages.querySelectorAll<HTMLElement>(':scope > li[tabindex="0"]')) one.tabIndex = -1;
    to.tabIndex = 0;
    focusKey = to.dataset.key ?? "";
  }

  for (const [form, field, act] of [["login", "name", actions.login], ["talk", "other", actions.talk]] as const)
    get(form).onsubmit = (event) => {
      const input = get<HTMLInputElement>(field);
      event.preventDefault();
      if (input.value.trim()) act(input.value.trim());
      input.value = "";
    };
  get("leave").onclick = actions.leave;
  get("back").onclick = () => actions.open("");
  get("presence").onchange = () => actions.state(get<HTMLSelectElement>("presence").value);
  get("down").onclick = () => {
    if (shown?.room?.inPast) placed = false;
    actions.newest();
    messages.scrollTop = messages.scrollHeight;
    composer.focus();
  };
  get("more-rooms").onclick = () => {
    rows += ROWS;
    if (shown) draw(shown);
  };
  get("pin").onclick = () => {
    const [pin] = shown?.room?.pins ?? [];
    if (pin) actions.jump(pin.seq);
  };
  get<HTMLDetailsElement>("away").ontoggle = () => { if (get<HTMLDetailsElement>("away").open) actions.away(); };
  messages.onscroll = () => {
    more();
    down();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.activeElement?.closest("#messages")) composer.focus();
  });
  for (const notice of document.querySelectorAll<HTMLElement>(".notice")) notice.onclick = () => actions.hush();

  const fromEnd = () => messages.scrollHeight - messages.scrollTop - messages.clientHeight;

  function more(): void {
    if (!shown?.room || !placed) return;
    if (messages.scrollTop < NEAR_TOP_PX) actions.older();
    if (shown.room.inPast && fromEnd() < NEAR_TOP_PX) actions.newer();
  }

  function down(): void {
    const { room } = shown ?? {};
    const button = get("down");
    button.hidden = !room || (!room.inPast && fromEnd() < 3 * NEAR_END_PX);
    button.textContent = room?.unread ? `↓ ${room.unread} new` : "↓ Newest";
  }

  function place(view: View, follows: boolean, anchor: { key: string; top: number } | undefined): void {
    if (!view.lines.length) return;
    const target = view.jump === undefined ? undefined : messages.querySelector<HTMLElement>(`[data-seq="${view.jump}"]`);
    if (target) {
      placed = true;
      target.scrollIntoView({ block: "center" });
      target.classList.add("flash");
      setTimeout(() => target.classList.remove("flash"), FLASH_MS);
      rove(target);
      target.focus({ preventScroll: true });
      return actions.jumped();
    }
    const divider = messages.querySelector<HTMLElement>(".new");
    if (!placed && divider) messages.scrollTop = divider.offsetTop - messages.offsetTop - messages.clientHeight / 3;
    else if (!placed || follows) messages.scrollTop = messages.scrollHeight;
    else if (anchor) {
      // What comes or grows above leaves what is being read where it is.
      const kept = [...messages.children].find((one) => (one as HTMLElement).dataset.key === anchor.key) as HTMLElement | undefined;
      if (kept) messages.scrollTop += kept.getBoundingClientRect().top - anchor.top;
    }
    placed ||= !view.room?.loading || view.lines.length > 1;
  }

  /** New messages are read out; changes of old ones are not. */
  function announce({ lines }: View, isSame: boolean): void {
    const last = lines.at(-1)?.seq ?? lines.filter(({ seq }) => seq).at(-1)?.seq ?? 0;
    const news = isSame && announced ? lines.filter(({ seq = 0, kind, folded }) => seq > announced && kind === "theirs" && !folded) : [];
    if (news.length) get("announce").textContent = news.slice(-3).map(({ author, text }) => `${author}: ${text}`).join(". ");
    announced = Math.max(isSame ? announced : 0, last);
  }

  return draw;

  function draw(view: View): void {
    const isSame = view.open === open;
    const follows = isSame && fromEnd() < NEAR_END_PX && !view.room?.inPast;
    const top = messages.getBoundingClientRect().top;
    const reading = follows ? undefined : [...messages.children].find((one) => one.getBoundingClientRect().bottom > top) as HTMLElement | undefined;
    const anchor = isSame && reading ? { key: reading.dataset.key ?? "", top: reading.getBoundingClientRect().top } : undefined;
    if (!isSame) placed = false;
    // Somebody else at the same window: nothing of what was being written is theirs.
    if (shown && shown.me !== view.me) {
      composer.forget();
      for (const form of document.forms) form.reset();
    }
    shown = view;
    document.body.dataset.page = view.page;
    const title = view.title ? `${view.title} · Caffis Chat` : "Caffis Chat";
    document.title = view.unread ? `(${view.unread}) ${title}` : title;
    Object.assign(get("state"), { textContent: view.paused ? `${view.state}, busy` : view.state, className: view.paused ? "busy" : view.tone, title: view.paused });
    for (const notice of document.querySelectorAll(".notice")) if (notice.textContent !== view.notice) notice.textContent = view.notice;
    [get("my-name").textContent, get("title").textContent] = [view.me, view.title];
    get<HTMLSelectElement>("presence").value = view.presence;
    get("presence").hidden = !view.canPresence;
    const { room } = view;
    get("subtitle").textContent = room?.subtitle ?? "";
    get("subtitle").dataset.presence = room?.presence ?? "";
    get("typing").textContent = room?.typing ?? "";
    const [pin] = room?.pins ?? [];
    get("pin").hidden = !pin;
    get("pin").replaceChildren(...(pin ? [make("b", "", `Pinned${(room?.pins.length ?? 0) > 1 ? ` (${room?.pins.length})` : ""}`), said("span", "", `${pin.author}: ${pin.text}`)] : []));
    sync(get("me"), [view.me], (me) => me, (me) => avatar(me));
    get("more-rooms").hidden = view.rooms.length <= rows;
    sync(get("rooms"), view.rooms.slice(0, rows), ({ key }) => key, (row) => drawRow(row, actions));
    sync(get("away-rooms"), view.away, ({ key }) => key, (row) => drawRow(row, actions));
    get("away").hidden = !view.canArchive || (!view.away.length && !view.rooms.length);
    composer.update(view);
    sync(messages, view.lines, ({ key }) => key, (line) => drawLine(line, hooks));
    messages.ariaBusy = String(Boolean(room?.loading));
    if (!messages.querySelector(':scope > li[tabindex="0"]')) {
      const again = [...messages.children].find((one) => (one as HTMLElement).dataset.key === focusKey) as HTMLElement | undefined;
      if (again) again.tabIndex = 0;
    }
    place(view, follows, anchor);
    announce(view, isSame);
    drawPanels(view);
    if (view.open && !isSame && view.jump === undefined && !matchMedia("(pointer: coarse)").matches) composer.focus();
    open = view.open;
    more();
    down();
    reportSeen();
  }
}

function drawRow({ key, title, preview, unread, open, at, muted, named, archived, typing, presence, isGroup, canMute }: Row, actions: Actions): HTMLElement {
  const count = make("span", named ? "unread named" : muted ? "unread muted" : "unread", unread ? `${named ? "@ " : ""}${unread < 100 ? unread : "99+"}` : "");
  const when = make("small", "when", at ? (day(at) === "Today" ? clock(at) : day(at)) : "");
  const row = button("plain room", title, () => actions.open(key),
    avatar(title, isGroup ? "" : presence), said("b", "title", title), when, said("span", typing ? "preview typing" : "preview", preview), make("span", "flags", muted ? "🔕" : ""), count);
  row.ariaLabel = [title, unread ? `${unread} unread` : "", named ? "you are mentioned" : "", muted ? "muted" : "", preview].filter(Boolean).join(", ");
  row.dataset.focus = "room";
  if (open) row.ariaCurrent = "true";
  const element = make("li", "", row);
  if (!canMute) return element;
  const items: Item[] = [
    { label: muted ? "Unmute" : "Mute", act: () => actions.room(key, { type: "room.mute", data: muted ? { until: null } : {} }) },
    { label: archived ? "Bring back" : "Archive", act: () => actions.room(key, { type: "room.archive", data: { archived: !archived } }) },
  ];
  const more = button("plain icon more", `Menu of ${title}`, () => openMenu(more, items), "⋯");
  more.dataset.focus = "more";
  element.append(more);
  element.oncontextmenu = (event) => (event.preventDefault(), openMenu(more, items));
  return element;
}
