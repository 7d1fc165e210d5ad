// What happened, and the requests that follow from it; nothing here waits. The parts are model.ts,
// history.ts, outbox.ts and people.ts.
//
// Next: view.ts.
import { advance, afresh, catchUp, durable, goOn, hold, jump, newest, older, own, page, people } from "./history";
import { can, type Chat } from "./model";
import { changed, flush, flushOps, isChange, sent } from "./outbox";
import { blocked, blocks, present } from "./people";
import type { Data, Frame, Request, Resume, RoomChange } from "./protocol";

export { PAGE_MESSAGES, jump, newer, newest, older, quote } from "./history";
export { empty } from "./model";
export type { Chat, Held, Unsent } from "./model";
export { changeMessage, discard, retry, retryOp, send } from "./outbox";
export { pulse, read, typing } from "./people";

const RESUME_ROOMS_MAX = 500;

export function resume({ epoch, rooms }: Chat): Resume | undefined {
  const positions = [...rooms.values()].slice(0, RESUME_ROOMS_MAX).map((held) => [held.room_id, held.position]);
  return positions.length ? { epoch, rooms: Object.fromEntries(positions) } : undefined;
}

export function ready(chat: Chat, data: Data): Request[] {
  const { epoch = "", rooms = [], limits, paused = [] } = data;
  // Another epoch: the history was replaced, and what is held may never have happened.
  if (epoch !== chat.epoch) Object.assign(chat, { rooms: new Map(), ops: [], found: undefined });
  Object.assign(chat, { epoch, limits, paused, watched: new Map(), presence: new Map(), stateTold: "online", typingIn: "", typingToldAt: -Infinity, typingDue: false, receiptsAt: -Infinity });
  for (const held of chat.rooms.values()) {
    Object.assign(held, { loading: false, stale: true, typing: [], deliveredTold: 0, seenTold: 0 });
    for (const [seq, quoted] of held.quoted) if (!quoted) held.quoted.delete(seq);
  }
  for (const unsent of chat.outbox) unsent.sending = false;
  for (const op of chat.ops) op.sending = false;
  const requests: Request[] = [{ type: "rooms.list", data: {} }, { type: "user.blocks", data: {} }, { type: "search", data: { query: "" } }];
  for (const room of rooms) {
    if (room.reason === "ahead_of_server" || room.reason === "not_a_member" || room.reason === "epoch_changed") chat.rooms.delete(room.room_id);
    if (room.reason === "not_a_member") continue;
    const held = hold(chat, room);
    // What is held may be older than the room keeps it.
    if (room.reason === "position_expired") requests.push(...afresh(chat, held, room.last_seq));
    else if (room.recovered === false) requests.push(...goOn(chat, held, room.last_seq));
    else held.catching = undefined;
  }
  if (chat.archivedAsked) requests.push({ type: "rooms.list", data: { archived: true } });
  if (chat.open) requests.push(...open(chat, chat.open));
  requests.push({ type: "receipt.delivered", data: { rooms: {} } });
  return [...requests, ...flush(chat), ...flushOps(chat)];
}

/** Requests of the same part of the server: who lacks one lacks the others. */
const TOGETHER = [["receipt.delivered", "receipt.read", "room.mute", "room.archive", "room.members.list"], ["user.blocks", "user.block", "user.unblock"], ["typing.start", "typing.stop"]];

export function reply(chat: Chat, request: Request, frame: Frame): Request[] {
  const { data = {}, error } = frame;
  for (const type of TOGETHER.find((all) => all.includes(request.type)) ?? [request.type])
    if (error?.code === "unknown_type") chat.lacks.add(type);
    else chat.lacks.delete(type);
  if (isChange(request)) return changed(chat, request, data, error);
  switch (request.type) {
    case "rooms.list": {
      const requests = (data.rooms ?? []).flatMap((room) => {
        const { stale } = chat.rooms.get(room.room_id) ?? {};
        const held = hold(chat, room);
        // `ready` describes only so many rooms.
        return stale ? goOn(chat, held, room.last_seq) : [];
      });
      return data.next_cursor ? [...requests, { type: "rooms.list", data: { ...request.data, cursor: data.next_cursor } }] : requests;
    }
    case "room.create":
      chat.notice = error?.message ?? "";
      return data.room ? open(chat, hold(chat, data.room).room_id) : [];
    case "room.get": {
      const { room, read_seq, unread, muted_until, archived } = data;
      if (room) hold(chat, { ...room, ...(read_seq !== undefined && { read_seq, unread, muted_until, archived }) });
      return [];
    }
    case "room.members.list": {
      const held = chat.rooms.get(request.data.room_id);
      if (!held || error) return [];
      const known = new Map([...(held.members ?? []), ...(data.members ?? [])].map((member) => [member.user_id, member]));
      Object.assign(held, { members: [...known.values()], membersCursor: data.next_cursor ?? null });
      people(chat, held, data.members ?? []);
      return [];
    }
    case "history.get":
      return [...page(chat, request.data, data), ...flush(chat), ...flushOps(chat)];
    case "message.send": return sent(chat, request.data, frame);
    case "upload.create": case "attachment.urls": return [];
    case "presence.subscribe": return present(chat, data), [];
    case "user.blocks": return error ? [] : blocks(chat, data, !request.data.cursor);
    case "user.block": case "user.unblock":
      if (error && !error.temporary) chat.notice = error.message;
      return error ? [] : blocked(chat, { user_id: request.data.user_id, blocked: request.type === "user.block" });
    case "search": {
      const { found } = chat;
      if (!found || found.query !== request.data.query || found.room_id !== request.data.room_id || error?.temporary) return [];
      const hits = (data.hits ?? []).filter(({ message }) => message);
      Object.assign(found, { hits: request.data.before ? [...found.hits, ...hits] : hits, busy: false, next: data.next_before });
      return [];
    }
    case "room.mute": case "room.archive": case "room.leave": case "room.update":
    case "room.members.add": case "room.members.remove": case "room.role.set":
      return roomChanged(chat, request, error);
    default: return [];
  }
}

function roomChanged(chat: Chat, request: RoomChange, error: Frame["error"]): Request[] {
  const held = chat.rooms.get(request.data.room_id);
  if (error && !error.temporary) chat.notice = error.message;
  if (error || !held) return [];
  // These are told to one's other devices only.
  if (request.type === "room.mute") held.muted_until = request.data.until === undefined ? "9999-12-31T23:59:59.999Z" : request.data.until;
  if (request.type === "room.archive") held.archived = request.data.archived;
  return [];
}

/** After a temporary refusal and its pause: the same again, with the same id. */
export function again(chat: Chat, request: Request): Request[] {
  if (request.type === "message.send") {
    for (const unsent of chat.outbox) if (unsent.client_msg_id === request.data.client_msg_id) unsent.sending = false;
    return flush(chat);
  }
  if (!isChange(request)) return [request];
  for (const op of chat.ops) if (op.change === request) op.sending = false;
  return flushOps(chat);
}

export function event(chat: Chat, frame: Frame): Request[] {
  const { type, data = {}, seq } = frame;
  const room_id = frame.room_id ?? data.room_id ?? "";
  let held = chat.rooms.get(room_id);
  if (data.user_id && data.name) chat.names.set(data.user_id, data.name);
  switch (type) {
    case "room.added":
      if (data.room) hold(chat, { ...data.room, last_seq: data.last_seq ?? data.room.last_seq, read_seq: data.read_seq ?? 0, unread: 0 });
      return data.room && room_id === chat.open ? older(chat, true) : [];
    case "room.removed":
      chat.rooms.delete(room_id);
      return [];
    case "room.gap": return held ? catchUp(chat, held, data.last_seq ?? held.position) : [];
    case "typing.updated":
      if (held) held.typing = data.user_ids ?? [];
      return [];
    case "receipt.updated":
      if (held) advance(held, data);
      return [];
    case "unread.updated":
      if (held) {
        Object.assign(held, { muted_until: data.muted_until ?? null, archived: data.archived ?? false });
        own(chat, held, data, held.position);
      }
      return [];
    case "presence.updated": return present(chat, data), [];
    case "user.blocks.updated": return blocked(chat, data);
  }
  if (seq === undefined) return [];
  const requests: Request[] = held ? [] : [{ type: "rooms.list", data: {} }];
  held ??= hold(chat, { room_id, kind: "", last_seq: seq - 1 });
  requests.push(...durable(chat, held, frame, seq));
  const author = data.message?.sender_id;
  if (type === "message.created") held.typing = held.typing.filter((user) => user !== author);
  return [...requests, ...flush(chat), ...flushOps(chat)];
}

export function open(chat: Chat, room_id: string): Request[] {
  const [before, held] = [chat.rooms.get(chat.open), chat.rooms.get(room_id)];
  if (before && before !== held) {
    before.divider = 0;
    newest(before);
  }
  Object.assign(chat, { open: room_id, notice: "" });
  if (!held) return [];
  if (held.unread && !held.divider) held.divider = held.seen;
  return [...older(chat, true), { type: "room.get", data: { room_id } }];
}

/** Looks for messages, in one room or in all. */
export function search(chat: Chat, query: string, room_id?: string): Request[] {
  chat.found = query ? { query, room_id, hits: [], busy: true } : undefined;
  return query ? [{ type: "search", data: { query, ...(room_id && { room_id }) } }] : [];
}

/** The page of older hits. */
export function searchOn(chat: Chat): Request[] {
  const { query = "", room_id, next, busy } = chat.found ?? {};
  if (!chat.found || !next || busy) return [];
  chat.found.busy = true;
  return [{ type: "search", data: { query, ...(room_id && { room_id }), before: next } }];
}

/** A hit is opened where it stands. */
export function visit(chat: Chat, room_id: string, seq: number): Request[] {
  const requests = chat.open === room_id ? [] : open(chat, room_id);
  return [...requests, ...jump(chat, room_id, seq)];
}

/** The rooms that were put away. */
export function archived(chat: Chat): Request[] {
  if (chat.archivedAsked || !can(chat, "room.archive")) return [];
  chat.archivedAsked = true;
  return [{ type: "rooms.list", data: { archived: true } }];
}
