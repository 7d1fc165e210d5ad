// Draws a view and tells what the user did. Knows nothing of the protocol and keeps nothing but elements:
// each lives as long as what it shows, so that nothing is read out twice and no selection is lost.
export interface Line { key: string; kind: "mine" | "theirs" | "system"; author: string; text: string; at: string; mark: string; seq?: number }
export interface Row { key: string; title: string; preview: string; unread: number; open: boolean }
export interface View { page: string; me: string; state: string; tone: string; notice: string; open: string; title: string; rooms: Row[]; lines: Line[] }
export interface Actions { login(name: string): void; leave(): void; talk(name: string): void; open(key: string): void; send(text: string): void; older(): void }

/** An older page is fetched before the upper end is reached; near the lower end new messages are followed. */
const NEAR_TOP_PX = 200;
const NEAR_END_PX = 60;

const get = <E extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as E;
const clock = (at: string) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

function make(tag: string, className: string, ...children: (Node | string)[]): HTMLElement {
  const element = Object.assign(document.createElement(tag), { className });
  element.append(...children);
  return element;
}

function avatar(name: string): HTMLElement {
  const element = make("span", "avatar", name.slice(0, 1).toUpperCase());
  element.ariaHidden = "true";
  element.style.setProperty("--hue", String([...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 7)));
  return element;
}

function drawLine({ kind, author, text, at, mark, seq }: Line): HTMLElement {
  if (kind === "system") return make("li", kind, text);
  const foot = make("small", "foot", clock(at), make("span", "mark", mark));
  const line = make("li", kind, avatar(author), make("div", "bubble", make("b", "author", author), make("p", "text", text), foot));
  if (seq) line.dataset.seq = String(seq);
  return line;
}

function drawRow({ key, title, preview, unread, open }: Row, actions: Actions): HTMLElement {
  const count = make("span", "unread", unread ? (unread < 100 ? String(unread) : "99+") : "");
  const button = make("button", "plain", avatar(title), make("b", "title", title), count, make("span", "preview", preview));
  button.onclick = () => actions.open(key);
  if (unread) count.ariaLabel = `${unread} unread`;
  if (open) button.ariaCurrent = "true";
  return make("li", "", button);
}

/** Makes the children of `list` those of `items`, touching only what differs. */
function sync<T>(list: HTMLElement, items: T[], draw: (item: T) => HTMLElement): void {
  const old = new Map([...list.children].map((child) => [child.getAttribute("data-key"), child]));
  items.forEach((item, index) => {
    const key = JSON.stringify(item);
    const child = old.get(key) ?? draw(item);
    child.setAttribute("data-key", key);
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] ?? null);
  });
  while (list.children.length > items.length) list.lastElementChild?.remove();
}

/** Binds the page to `actions`; the function that is returned draws. */
export function mount(actions: Actions): (view: View) => void {
  const [messages, text] = [get("messages"), get<HTMLTextAreaElement>("text")];
  for (const [form, field, act] of [["login", "name", actions.login], ["talk", "other", actions.talk], ["composer", "text", actions.send]] as const)
    get(form).onsubmit = (event) => {
      const input = get<HTMLInputElement>(field);
      event.preventDefault();
      if (input.value.trim()) act(input.value.trim());
      input.value = "";
    };
  text.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    get<HTMLFormElement>("composer").requestSubmit();
  };
  get("leave").onclick = actions.leave;
  get("back").onclick = () => actions.open("");
  messages.onscroll = () => { if (messages.scrollTop < NEAR_TOP_PX) actions.older(); };
  let [open, first] = ["", ""];
  return (view) => {
    const fromEnd = messages.scrollHeight - messages.scrollTop;
    const follows = view.open !== open || fromEnd - messages.clientHeight < NEAR_END_PX;
    document.body.dataset.page = view.page;
    document.title = view.title ? `${view.title} · Caffis Chat` : "Caffis Chat";
    Object.assign(get("state"), { textContent: view.state, className: view.tone });
    for (const notice of document.querySelectorAll(".notice")) notice.textContent = view.notice;
    [get("my-name").textContent, get("title").textContent] = [view.me, view.title];
    sync(get("me"), [view.me], avatar);
    sync(get("rooms"), view.rooms, (row) => drawRow(row, actions));
    sync(messages, view.lines, drawLine);
    // An older page above leaves what is being read where it is.
    if (follows) messages.scrollTop = messages.scrollHeight;
    else if (view.lines[0]?.key !== first) messages.scrollTop = messages.scrollHeight - fromEnd;
    if (view.open && view.open !== open) text.focus();
    [open, first] = [view.open, view.lines[0]?.key ?? ""];
    if (view.open && messages.scrollTop < NEAR_TOP_PX) actions.older();
  };
}
