// Gives the pure parts a clock, a socket, storage and the page. Nothing is decided here.
import * as chats from "./chat";
import { idle, step, type Connection, type Effect, type Happening } from "./connection";
import { uuid7, type Frame, type Request } from "./protocol";
import { mount } from "./ui";
import { view } from "./view";

interface Token { token: string; user_id: string }
interface Login extends Token { name: string; device_id: string; outbox: chats.Unsent[] }
const LOGIN_MS_MAX = 10_000;
const RETRY_MS = 1_000;
const DRAW_AFTER_MS = 16;
const TIMER_MS_MAX = 60_000;

// Of this tab alone, so that two tabs can be two people, and a reload neither signs out nor forgets a send.
let login = JSON.parse(sessionStorage.getItem("login") ?? "null") as Login | null;
let chat = chats.empty("", []);
let connection: Connection = idle;
let socket: WebSocket | undefined;
let [timer, drawing] = [0, 0];

/** The demo's identity: whoever says a name is that user. */
async function ask(name: string): Promise<Token> {
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ name }) };
  const response = await fetch("/v1/demo/login", { ...options, signal: AbortSignal.timeout(LOGIN_MS_MAX) });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return (await response.json()) as Token;
}

function feed(happening: Happening): void {
  if (!login) return;
  const [next, effects] = step(connection, { ...happening, now: Date.now(), random: Math.random() });
  connection = next;
  effects.forEach(perform);
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
    case "refresh token": return void renew().then(({ token }) => feed({ on: "request", request: { type: "auth.refresh", data: { token } } }), failed);
    case "ready": return requests(chats.ready(chat, effect.data));
    case "event": return requests(chats.event(chat, effect.frame));
    case "reply": {
      const { request, frame: { error } } = effect;
      requests(chats.reply(chat, request, effect.frame));
      if (error?.temporary) setTimeout(() => requests(chats.again(chat, request)), error.retry_after_ms ?? RETRY_MS);
    }
  }
}

const requests = (all: Request[]): void => all.forEach((request) => feed({ on: "request", request }));

async function renew(): Promise<Login> {
  if (!login) throw new Error("signed out");
  return Object.assign(login, await ask(login.name));
}

async function open(freshToken: boolean): Promise<void> {
  try {
    if (freshToken) await renew();
  } catch {
    return feed({ on: "closed", code: 1006 });
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
  [login, connection, chat] = [as, idle, chats.empty(as?.user_id ?? "", as?.outbox ?? [])];
  if (login) feed({ on: "time" });
  changed();
}

const failed = (error: Error): void => {
  chat.notice = error.message;
  changed();
};

const draw = mount({
  leave: () => enter(null),
  login: (name) => void ask(name).then((told) => enter({ name, device_id: uuid7(Date.now()), outbox: [], ...told }), failed),
  talk: (name) => void ask(name).then(({ user_id }) => {
    const data = { kind: "direct" as const, member_ids: [user_id], client_room_id: uuid7(Date.now()) };
    requests([{ type: "room.create", data }]);
  }, failed),
  open: (room_id) => (requests(chats.open(chat, room_id)), changed()),
  send: (text) => {
    const all = chats.send(chat, text, uuid7(Date.now()), new Date().toISOString());
    keep(); // before the request, and before anything can go wrong
    requests(all);
    changed();
  },
  older: () => requests(chats.older(chat)),
});

/** Draws once per burst, by a timer: animation frames stop in a hidden tab while messages do not. */
function changed(): void {
  drawing ||= window.setTimeout(() => {
    drawing = 0;
    if (!document.hidden) chats.read(chat);
    keep();
    draw(view(login?.name ?? "", chat, connection));
  }, DRAW_AFTER_MS);
}

function keep(): void {
  if (login) login.outbox = chat.outbox;
  sessionStorage.setItem("login", JSON.stringify(login));
}

document.onvisibilitychange = changed;
window.ononline = () => feed({ on: "wake" });
enter(login);
