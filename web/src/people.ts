// Who is there, who types, how far everybody has read, and whom one does not want to hear: what is told
// now and then, by `pulse`, which is called often.
//
// Next: chat.ts.
import { quotes, recount } from "./history";
import { can, others, shown, type Chat, type Held } from "./model";
import type { Data, Request } from "./protocol";

const WATCH_USERS_MAX = 200;
const WATCHED_MAX = 900;
const WATCH_AGAIN_MS = 2 * 60_000;
const WATCH_MS = 14 * 60_000;
const RECEIPTS_MS = 1_000;
const TYPING_MS = 3_000;
/** Rooms of one receipt. */
const RECEIPT_ROOMS_MAX = 500;

/** What is due by now. */
export function pulse(chat: Chat, now: number): Request[] {
  if (!chat.epoch) return [];
  return [...(chat.typingDue ? typing(chat, true, now) : []), ...seenAs(chat), ...watch(chat, now), ...receipts(chat, now), ...quotes(chat)];
}

function seenAs(chat: Chat): Request[] {
  const state = chat.state === "online" && !chat.looking ? "away" : chat.state;
  if (state === chat.stateTold || !can(chat, "presence.set")) return [];
  chat.stateTold = state;
  return [{ type: "presence.set", data: { state } }];
}

/** Those with whom one talks alone, and those in the open room. */
function watch(chat: Chat, now: number): Request[] {
  if (!can(chat, "presence.subscribe")) return [];
  const open = chat.rooms.get(chat.open);
  const direct = [...chat.rooms.values()].filter(({ kind }) => kind === "direct");
  const wanted = [...(open ? [open] : []), ...direct].flatMap((held) => others(chat, held)).map(({ user_id }) => user_id);
  const due = [...new Set(wanted)].slice(0, WATCHED_MAX).filter((user) => (chat.watched.get(user) ?? 0) < now + WATCH_AGAIN_MS).slice(0, WATCH_USERS_MAX);
  if (!due.length) return [];
  for (const user of due) chat.watched.set(user, now + WATCH_MS);
  return [{ type: "presence.subscribe", data: { user_ids: due } }];
}

/** What was received and read since it was told last, at most once a second. */
function receipts(chat: Chat, now: number): Request[] {
  if (!can(chat, "receipt.read") || now - chat.receiptsAt < RECEIPTS_MS) return [];
  const requests: Request[] = [];
  const held = [...chat.rooms.values()];
  const read = held.filter((one) => one.seen > one.seenTold).slice(0, RECEIPT_ROOMS_MAX);
  const delivered = held.filter((one) => one.position > Math.max(one.deliveredTold, one.seen)).slice(0, RECEIPT_ROOMS_MAX);
  for (const one of delivered) one.deliveredTold = one.position;
  for (const one of read) [one.seenTold, one.deliveredTold] = [one.seen, Math.max(one.seen, one.deliveredTold)];
  if (delivered.length) requests.push({ type: "receipt.delivered", data: { rooms: Object.fromEntries(delivered.map((one) => [one.room_id, one.position])) } });
  if (read.length) requests.push({ type: "receipt.read", data: { rooms: Object.fromEntries(read.map((one) => [one.room_id, one.seen])) } });
  if (requests.length) chat.receiptsAt = now;
  return requests;
}

/** The user has seen the open room up to this message. */
export function read(chat: Chat, seq: number): void {
  const held = chat.rooms.get(chat.open);
  if (!held || !chat.looking) return;
  const after = shown(held).some((message) => message.seq > seq);
  // Nothing stands below: what follows are changes of what was seen.
  const seen = after || held.island || held.catching ? seq : Math.max(seq, held.position);
  if (seen <= held.seen) return;
  held.seen = seen;
  if (seen >= held.position) Object.assign(held, { unread: 0, named: false });
  recount(chat, held);
}

/** The user changed the text that is being written, and is told of in time, at the latest by the next `pulse`; `isTyping` is false when it is sent, emptied or left. */
export function typing(chat: Chat, isTyping: boolean, now: number): Request[] {
  const { open, typingIn } = chat;
  const requests: Request[] = [];
  if (!can(chat, "typing.start")) return [];
  const isDue = now - chat.typingToldAt >= (chat.limits?.typing_interval_ms ?? TYPING_MS) || (typingIn !== "" && typingIn !== open);
  chat.typingDue = isTyping && !isDue;
  if (typingIn && (!isTyping || typingIn !== open)) {
    requests.push({ type: "typing.stop", data: { room_id: typingIn } });
    chat.typingIn = "";
  }
  if (isTyping && open && isDue) {
    Object.assign(chat, { typingIn: open, typingToldAt: now });
    requests.push({ type: "typing.start", data: { room_id: open } });
  }
  return requests;
}

export function present(chat: Chat, { users = [] }: Data): void {
  for (const user of users) chat.presence.set(user.user_id, user);
}

export function blocks(chat: Chat, { users = [], next_cursor }: Data, isFirst: boolean): Request[] {
  if (isFirst) chat.blocked.clear();
  for (const { user_id, name } of users) {
    chat.blocked.set(user_id, name ?? "");
    if (name) chat.names.set(user_id, name);
  }
  return next_cursor ? [{ type: "user.blocks", data: { cursor: next_cursor } }] : [];
}

export function blocked(chat: Chat, { user_id, blocked: is }: Data): Request[] {
  if (!user_id) return [{ type: "user.blocks", data: {} }];
  if (is) chat.blocked.set(user_id, chat.names.get(user_id) ?? "");
  else chat.blocked.delete(user_id);
  chat.watched.delete(user_id);
  return [];
}

/** Others who type in the room, by id. */
export const typers = (chat: Chat, held: Held) => held.typing.filter((user) => user !== chat.me && !chat.blocked.has(user));
