// What this user knows: rooms, messages, and what is still to be sent. Each function takes what
// happened and returns the requests that follow from it; nothing here waits.
//
// Invariants: a room holds every message from `from` to `position`, and `position` moves only over what
// was applied. A send keeps its id until it is stored or refused for good, and a room has one send in
// flight, so that a retry cannot overtake.
//
// Next: view.ts.
import type { Data, Frame, Message, Page, Request, Resume, Room } from "./protocol";

export interface Held extends Room {
  messages: Map<number, Message>; from: number; position: number; hasOlder: boolean; loading: boolean;
  /** While what was missed is fetched, the position stays and `live` is the last event that came. */
  behind: boolean; live: number;
}
export interface Unsent { room_id: string; client_msg_id: string; text: string; created_at: string; sending?: boolean; seq?: number; error?: string }
export interface Chat { me: string; epoch: string; rooms: Map<string, Held>; names: Map<string, string>; outbox: Unsent[]; open: string; notice: string }

export const PAGE_MESSAGES = 50;
const RESUME_ROOMS_MAX = 500;
/** Events that stand in the history as messages of kind `system`, with their own `seq`. */
const SYSTEM = ["room.created", "room.updated", "member.joined", "member.left", "member.role_changed"];

export const empty = (me: string, outbox: Unsent[]): Chat =>
  ({ me, epoch: "", rooms: new Map(), names: new Map(), outbox, open: "", notice: "" });

export function resume({ epoch, rooms }: Chat): Resume | undefined {
  const positions = [...rooms.values()].slice(0, RESUME_ROOMS_MAX).map((held) => [held.room_id, held.position]);
  return positions.length ? { epoch, rooms: Object.fromEntries(positions) } : undefined;
}

export function ready(chat: Chat, { epoch = "", rooms = [] }: Data): Request[] {
  // Another epoch: the history was replaced, and what is held may never have happened.
  if (epoch !== chat.epoch) chat.rooms.clear();
  chat.epoch = epoch;
  for (const held of chat.rooms.values()) Object.assign(held, { behind: false, loading: false });
  for (const unsent of chat.outbox) unsent.sending = false;
  const requests: Request[] = [{ type: "rooms.list", data: {} }];
  for (const room of rooms) {
    if (room.reason === "ahead_of_server" || room.reason === "not_a_member") chat.rooms.delete(room.room_id);
    if (room.reason === "not_a_member") continue;
    const held = hold(chat, room);
    if (room.recovered === false && held.position < room.last_seq) requests.push(...catchUp(held));
  }
  return [...requests, ...older(chat, true), ...flush(chat)];
}

export function reply(chat: Chat, request: Request, { data = {}, error }: Frame): Request[] {
  switch (request.type) {
    case "rooms.list":
      for (const room of data.rooms ?? []) hold(chat, room);
      return data.next_cursor ? [{ type: "rooms.list", data: { cursor: data.next_cursor } }] : [];
    case "room.create":
      chat.notice = error?.message ?? "";
      return data.room ? open(chat, hold(chat, data.room).room_id) : [];
    case "history.get":
      return [...page(chat, request.data, data), ...flush(chat)];
    case "message.send": {
      const unsent = chat.outbox.find((one) => one.client_msg_id === request.data.client_msg_id);
      // A temporary refusal says nothing about the outcome: main.ts calls `again`.
      if (unsent && !error?.temporary) Object.assign(unsent, { sending: false, seq: data.seq, error: error?.message });
      return flush(chat);
    }
    default: return [];
  }
}

/** After a temporary refusal and its pause: the same again, with the same id. */
export function again(chat: Chat, request: Request): Request[] {
  if (request.type !== "message.send") return [request];
  for (const unsent of chat.outbox) if (unsent.client_msg_id === request.data.client_msg_id) unsent.sending = false;
  return flush(chat);
}

export function event(chat: Chat, frame: Frame): Request[] {
  const { type, data = {}, seq } = frame;
  const room_id = frame.room_id ?? data.room_id ?? "";
  let held = chat.rooms.get(room_id);
  if (data.user_id && data.name) chat.names.set(data.user_id, data.name);
  if (type === "room.added" && data.room) hold(chat, { ...data.room, last_seq: data.last_seq ?? data.room.last_seq });
  if (type === "room.removed") chat.rooms.delete(room_id);
  if (type === "room.gap" && held) return catchUp(held);
  if (seq === undefined) return [];
  const requests: Request[] = held ? [] : [{ type: "rooms.list", data: {} }];
  held ??= hold(chat, { room_id, kind: "", last_seq: seq - 1 });
  if (seq <= held.position) return requests;
  if (seq > held.position + 1) requests.push(...catchUp(held));
  apply(chat, held, frame, seq, data);
  if (held.behind) held.live = seq;
  else held.position = seq;
  return [...requests, ...flush(chat)];
}

export function send(chat: Chat, text: string, client_msg_id: string, created_at: string): Request[] {
  chat.outbox.push({ room_id: chat.open, client_msg_id, text, created_at });
  return flush(chat);
}

export function open(chat: Chat, room_id: string): Request[] {
  chat.open = room_id;
  return older(chat, true);
}

/** The page before what is held of the open room. The newest page is the one before nothing. */
export function older(chat: Chat, newestOnly = false): Request[] {
  const held = chat.rooms.get(chat.open);
  if (!held?.hasOlder || held.loading || (newestOnly && held.messages.size > 0)) return [];
  held.loading = true;
  return history(held, { before_seq: held.from });
}

/** The open room is in front of the user. */
export function read({ rooms, open }: Chat): void {
  const held = rooms.get(open);
  if (held) held.unread = 0;
}

/** Live events of a room that is new here begin after its `last_seq`, so that is its position. */
function hold(chat: Chat, room: Room): Held {
  const { last_seq, room_id } = room;
  const fresh = { messages: new Map(), from: last_seq + 1, position: last_seq, hasOlder: true, loading: false, behind: false, live: 0 };
  const known = chat.rooms.get(room_id);
  // What was read on this page the server is not told, so what is unread is counted here from now on.
  const held: Held = known ? Object.assign(known, { ...room, unread: known.unread }) : { ...fresh, ...room };
  for (const member of room.members ?? []) chat.names.set(member.user_id, member.name);
  chat.rooms.set(room_id, held);
  return held;
}

const history = ({ room_id }: Held, where: Partial<Page>): Request[] =>
  [{ type: "history.get", data: { room_id, limit: PAGE_MESSAGES, ...where } }];

function catchUp(held: Held): Request[] {
  if (held.behind) return [];
  Object.assign(held, { behind: true, live: 0 });
  return history(held, { after_seq: held.position });
}

function page(chat: Chat, asked: Page, { messages = [], has_more = false, last_seq, next_after_seq }: Data): Request[] {
  const held = chat.rooms.get(asked.room_id);
  if (!held || last_seq === undefined) return [];
  const from = Math.min(held.from, messages[0]?.seq ?? held.from);
  if (asked.after_seq === undefined) Object.assign(held, { loading: false, hasOlder: has_more, from });
  for (const message of messages) merge(chat, held, message);
  // A page that was read before an event came here has not what that event changed.
  if (asked.after_seq === undefined) return last_seq < held.position && !held.behind ? history(held, { after_seq: last_seq }) : [];
  const next = next_after_seq ?? last_seq;
  held.position = Math.max(held.position, next, has_more ? 0 : held.live);
  held.behind &&= has_more;
  return has_more ? history(held, { after_seq: next }) : [];
}

function apply(chat: Chat, held: Held, { type, ts = "" }: Frame, seq: number, data: Data): void {
  const { message, message_seq = 0, user_id = "", name = "" } = data;
  const changed = held.messages.get(message_seq);
  const others = (held.members ?? []).filter((member) => member.user_id !== user_id);
  if (message) merge(chat, held, message);
  if (type === "message.deleted" && changed) merge(chat, held, { ...changed, text: "", deleted_at: ts, changed_seq: seq });
  if (type === "room.updated") held.title = data.title;
  if (type === "member.joined") held.members = [...others, { user_id, name }];
  if (type === "member.left") held.members = others;
  if (SYSTEM.includes(type)) merge(chat, held, { seq, changed_seq: seq, kind: "system", created_at: ts, event: { ...data, type } });
}

function merge(chat: Chat, held: Held, message: Message): void {
  if (message.sender_id === chat.me) chat.outbox = chat.outbox.filter((one) => one.client_msg_id !== message.client_msg_id);
  if (message.seq >= (held.last_message?.seq ?? 0)) held.last_message = message;
  // Below `from` only a page may add, or a hole would look like history.
  const known = held.messages.get(message.seq)?.changed_seq ?? 0;
  if (message.seq < held.from || message.changed_seq <= known) return;
  if (!known && message.seq > held.position && message.kind !== "system" && message.sender_id !== chat.me) held.unread = (held.unread ?? 0) + 1;
  held.messages.set(message.seq, message);
}

/** Sends what is due, after forgetting what the position has passed: that is history by now. */
function flush(chat: Chat): Request[] {
  chat.outbox = chat.outbox.filter((one) => !one.seq || one.seq > (chat.rooms.get(one.room_id)?.position ?? 0));
  const busy = new Set<string>();
  return chat.outbox.flatMap((unsent): Request[] => {
    const { room_id, client_msg_id, text, seq, error, sending } = unsent;
    if (seq || error || busy.has(room_id)) return [];
    busy.add(room_id);
    unsent.sending = true;
    return sending ? [] : [{ type: "message.send", data: { room_id, client_msg_id, kind: "text", text } }];
  });
}
