// Gives the pure parts a clock, a socket, storage and the page. Nothing is decided here.
import * as chats from "./chat";
import { get } from "./dom";
import { files as keeper } from "./files";
import { idle, step, type Connection, type Effect, type Happening } from "./connection";
import { SignedOut, askDemo, askMainApp, howToSignIn, type Token } from "./identity";
import { uuid7, type Change, type Frame, type Request } from "./protocol";
import { mount } from "./ui";
import { view } from "./view";

interface Login extends Token { device_id: string; presence?: string }
const RETRY_MS = 1_000;
const DRAW_AFTER_MS = 16;
const TIMER_MS_MAX = 60_000;
const PULSE_MS = 1_000;
const UNAUTHENTICATED = 4001;

// Of this tab alone, so that two tabs can be two people, and a reload does not sign out.
let login = JSON.parse(sessionStorage.getItem("login") ?? "null") as Login | null;
let chat = chats.empty("", []);
let connection: Connection = idle;
let socket: WebSocket | undefined;
let [timer, drawing] = [0, 0];
/** Where people sign in; none: the demo login. */
let mainApp: string | null = null;

const files = keeper((request) => feed({ on: "request", request }), () => changed());

function feed(happening: Happening): void {
  if (!login) return;
  const [next, effects] = step(connection, { ...happening, now: Date.now(), random: Math.random() });
  connection = next;
  effects.forEach(perform);
  if (mainApp && connection.phase === "stopped" && connection.code === UNAUTHENTICATED) return signedOut();
  clearTimeout(timer);
  const waitMs = Math.min(connection.dueAt, connection.refreshAt) - Date.now();
  timer = window.setTimeout(() => feed({ on: "time" }), Math.min(TIMER_MS_MAX, Math.max(0, waitMs)));
  changed();
}

function perform(effect: Effect): void {
  switch (effect.do) {
    case "open": return void open(effect.freshToken);
    case "close": return close();
    case "send": return socket?.send(JSON.stringify({ id: effect.id, ...effect.request }));
    case "refresh token": return void renew().then(({ token }) => feed({ on: "request", request: { type: "auth.refresh", data: { token } } }), notRenewed);
    case "ready":
      requests(chats.ready(chat, effect.data));
      return files.ready();
    case "event": return requests(chats.event(chat, effect.frame));
    case "reply": {
      const { request, frame: { error } } = effect;
      files.heard(request, effect.frame);
      requests(chats.reply(chat, request, effect.frame));
      if (error?.temporary) setTimeout(() => requests(chats.again(chat, request)), error.retry_after_ms ?? RETRY_MS);
    }
  }
}

const requests = (all: Request[]): void => all.forEach((request) => feed({ on: "request", request }));

async function renew(): Promise<Login> {
  const asked = login;
  if (!asked) throw new SignedOut();
  const told = await (mainApp ? askMainApp(mainApp) : askDemo(asked.name));
  // Meanwhile somebody else may have signed in there, or out here.
  if (told.user_id !== asked.user_id || login !== asked) throw new SignedOut();
  return Object.assign(asked, told);
}

/** The connection lives on with the token that it has, until the server ends it. */
const notRenewed = (error: Error): void => (error instanceof SignedOut ? signedOut() : failed(error));

function signedOut(): void {
  enter(null);
  chat.notice = "You are signed out";
}

async function open(freshToken: boolean): Promise<void> {
  try {
    if (freshToken) await renew();
  } catch (error) {
    return error instanceof SignedOut ? signedOut() : feed({ on: "closed", code: 1006 });
  }
  close();
  socket = new WebSocket(`${location.origin.replace("http", "ws")}/v1/ws`, "caffis.chat.v1");
  socket.onclose = ({ code }) => feed({ on: "closed", code });
  socket.onmessage = ({ data }) => feed({ on: "frame", frame: JSON.parse(String(data)) as Frame });
  socket.onopen = () => {
    const { token = "", device_id = "" } = login ?? {};
    const data = { token, device_id, client: { name: "caffis-web", version: "1.0.0" }, resume: chats.resume(chat) };
    feed({ on: "request", request: { type: "auth", data } });
  };
}

/** Deaf from here on: a half-open socket may take minutes to say that it is closed. */
function close(): void {
  if (socket) socket.onopen = socket.onclose = socket.onmessage = null;
  socket?.close();
  socket = undefined;
}

function enter(as: Login | null): void {
  close();
  files.forget();
  [login, connection, chat] = [as, idle, chats.empty(as?.user_id ?? "", as ? kept(as.user_id) : [])];
  chat.state = as?.presence ?? chat.state;
  chat.open = (as && roomOfLink()) ?? "";
  if (login) feed({ on: "time" });
  changed();
}

const failed = (error: Error): void => {
  chat.notice = error.message;
  changed();
};

const now = () => Date.now();
/** Ids in the order in which they were made, also within one millisecond. */
let lastIdMs = 0;
const id = () => uuid7((lastIdMs = Math.max(now(), lastIdMs + 1)));
const named = (all: string[]) => Promise.all(all.map((name) => askDemo(name).then(({ user_id }) => user_id)));
/** What was done, and the requests that follow from it. */
const did = (all: Request[]): void => (requests(all), changed());
/** What is asked once, and not again by itself after a reconnect. */
const wish = (all: Request[]): void => {
  if (all.length && connection.phase !== "ready") return failed(new Error("Not connected: please try again in a moment"));
  did(all);
};
const message = (seq: number) => ({ room_id: chat.open, message_seq: seq });
const change = (one: Change): void => did(chats.changeMessage(chat, one));

const draw = mount({
  leave: () => {
    if (mainApp) return location.assign(mainApp);
    if (login) for (const { client_msg_id } of chat.outbox) localStorage.removeItem(place(login.user_id, client_msg_id));
    enter(null);
  },
  login: (name) => void askDemo(name).then((told) => enter({ device_id: id(), ...told }), failed),
  state: (state) => {
    chat.state = state;
    if (login) login.presence = state;
    changed();
  },
  talk: (name) => void named([name]).then((member_ids) => wish([{ type: "room.create", data: { kind: "direct", member_ids, client_room_id: id() } }]), failed),
  group: (title, names) => void named(names).then((all) => {
    const member_ids = all.filter((id) => id !== chat.me);
    wish([{ type: "room.create", data: { kind: "group", member_ids, ...(title && { title }), client_room_id: id() } }]);
  }, failed),
  open: (room_id) => did([...chats.typing(chat, false, now()), ...chats.open(chat, room_id)]),
  send: (draft) => {
    const [first, ...others] = files.take(chat.open);
    // The words go with the first of them.
    const drafts = [{ ...draft, ...first }, ...others.map((group) => ({ text: "", ...group }))];
    const all = drafts.flatMap((one) => chats.send(chat, one, id(), new Date().toISOString()));
    keep(); // before the request, and before anything can go wrong
    did(all);
  },
  edit: (seq, text) => {
    const { revision } = chat.rooms.get(chat.open)?.messages.get(seq) ?? {};
    change({ type: "message.edit", data: { ...message(seq), text, ...(revision !== undefined && { expected_revision: revision }) } });
  },
  react: (seq, emoji, add) => change({ type: add ? "reaction.add" : "reaction.remove", data: { ...message(seq), emoji } }),
  remove: (seq) => change({ type: "message.delete", data: message(seq) }),
  pin: (seq, is) => change({ type: is ? "message.pin" : "message.unpin", data: message(seq) }),
  report: (seq) => change({ type: "message.report", data: message(seq) }),
  attach: (all, duration_ms) => files.add(chat.open, all, duration_ms),
  detach: (one) => files.remove(one),
  attachAgain: (one) => files.again(one),
  fileUrl: (room_id, upload_id, fresh) => files.url(room_id, upload_id, fresh),
  said: (notice) => failed(new Error(notice)),
  retry: (unsent) => did(chats.retry(chat, unsent)),
  discard: (unsent) => (chats.discard(chat, unsent), changed()),
  retryOp: (op, isWanted) => did(chats.retryOp(chat, op, isWanted)),
  older: () => requests(chats.older(chat)),
  newer: () => requests(chats.newer(chat)),
  newest: () => {
    const held = chat.rooms.get(chat.open);
    if (held) chats.newest(held);
    did(chats.older(chat, true));
  },
  jump: (seq) => did(chats.jump(chat, chat.open, seq)),
  jumped: () => (chat.jump = undefined),
  seen: (seq) => {
    const { unread, seen } = chat.rooms.get(chat.open) ?? {};
    chats.read(chat, seq);
    if (chat.rooms.get(chat.open)?.seen !== seen || chat.rooms.get(chat.open)?.unread !== unread) changed();
  },
  typing: (is) => requests(chats.typing(chat, is, now())),
  search: (query, here) => wish(chats.search(chat, query, here && chat.open ? chat.open : undefined)),
  searchOn: () => did(chats.searchOn(chat)),
  visit: (room_id, seq) => did(chats.visit(chat, room_id, seq)),
  room: (room_id, { type, data }) => wish([{ type, data: { ...data, room_id } } as Request]),
  invite: (names) => void named(names).then((user_ids) => wish([{ type: "room.members.add", data: { room_id: chat.open, user_ids } }]), failed),
  morePeople: () => {
    const cursor = chat.rooms.get(chat.open)?.membersCursor;
    wish([{ type: "room.members.list", data: { room_id: chat.open, ...(cursor && { cursor }) } }]);
  },
  block: (user_id, is) => wish([{ type: is ? "user.block" : "user.unblock", data: { user_id } }]),
  away: () => requests(chats.archived(chat)),
  hush: () => ((chat.notice = ""), changed()),
});

/** Draws once per burst, by a timer: animation frames stop in a hidden tab while messages do not. */
function changed(): void {
  drawing ||= window.setTimeout(() => {
    drawing = 0;
    chat.looking = !document.hidden;
    keep();
    draw({ ...view(login?.name ?? "", chat, connection), tray: files.tray(chat.open) });
  }, DRAW_AFTER_MS);
}

// What is not stored yet outlives the page and the tab: one entry each, so that two tabs of one user do not
// overwrite each other's. Both may send it, which its id makes one message.
const place = (user_id: string, client_msg_id: string) => `unsent ${user_id} ${client_msg_id}`;
const stored = new Map<string, string>();

function kept(user_id: string): chats.Unsent[] {
  stored.clear();
  for (const key of Object.keys(localStorage)) if (key.startsWith(place(user_id, ""))) stored.set(key, localStorage.getItem(key) ?? "");
  // The ids are of the time at which they were made.
  return [...stored].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, text]) => JSON.parse(text) as chats.Unsent);
}

function keep(): void {
  // The Main App is asked for a token each time: none need be kept.
  sessionStorage.setItem("login", JSON.stringify(login && mainApp ? { ...login, token: "" } : login));
  if (!login) return;
  const wanted = new Map(chat.outbox.map(({ sending: _, ...unsent }) => [place(chat.me, unsent.client_msg_id), JSON.stringify(unsent)]));
  for (const key of [...stored.keys()]) if (!wanted.has(key)) stored.delete(key), localStorage.removeItem(key);
  for (const [key, text] of wanted) {
    if (stored.get(key) === text) continue;
    stored.set(key, text);
    // Where nothing can be kept it is sent all the same.
    try { localStorage.setItem(key, text); } catch { chat.notice = "This browser keeps nothing: do not leave before all is sent."; }
  }
}

setInterval(() => {
  if (connection.phase !== "ready") return;
  const due = chats.pulse(chat, now());
  if (due.length) did(due);
}, PULSE_MS);
// "Last seen" grows old by itself.
setInterval(changed, TIMER_MS_MAX);
document.onvisibilitychange = changed;
window.ononline = () => feed({ on: "wake" });
window.onhashchange = () => {
  const room_id = login && roomOfLink();
  if (room_id) did(chats.open(chat, room_id));
};

/** What other pages lead to: `#room=…`, once. */
function roomOfLink(): string | null {
  const room_id = new URLSearchParams(location.hash.slice(1)).get("room");
  if (room_id) history.replaceState(null, "", location.pathname);
  return room_id;
}

async function begin(): Promise<void> {
  mainApp = (await howToSignIn()).main_app_url;
  document.body.dataset.signIn = mainApp ? "main-app" : "demo";
  if (!mainApp) return enter(login);
  for (const link of document.querySelectorAll<HTMLAnchorElement>("a.main-app")) link.href = mainApp;
  get("nobody").textContent = "Choose a conversation";
  get("leave").textContent = get("leave").title = "Account";
  const told = await askMainApp(mainApp);
  const { device_id, presence } = login?.user_id === told.user_id ? login : { device_id: id() };
  enter({ device_id, presence, ...told });
}

/** Until it is known who one is: both servers may be away for a while. */
function beginUntilDone(): void {
  begin().catch((error: Error) => {
    if (error instanceof SignedOut) return enter(null);
    failed(error);
    setTimeout(beginUntilDone, RETRY_MS);
  });
}
beginUntilDone();
