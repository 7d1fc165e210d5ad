// Rooms and their messages: what pages and events do to them. Each function returns the requests that follow.
//
// Events are applied in their order, a state of a message only if it is newer than the one held. While
// pages are fetched, what is no whole message waits for the last of them: it may concern a message of
// which an earlier change is still to come (docs/decisions/0013).
//
// Next: outbox.ts.
import { UNREAD_MAX, isNamed, isNews, shown, type Chat, type Held, type Kept } from "./model";
import type { Data, Frame, Member, Message, Own, Page, Request, Room, Watermark } from "./protocol";

export const PAGE_MESSAGES = 50;
const AROUND_MESSAGES = 100;
/** Above so many missed events the newest page is worth more than all of them. */
const CATCH_UP_EVENTS_MAX = 2_000;
const WAITING_MAX = 500;
const QUOTES_AT_ONCE = 5;
const TRIES_MAX = 10;
/** Events that change title, members or pins. */
const OF_ROOM = ["room.updated", "member.joined", "member.left", "member.role_changed", "message.pinned", "message.unpinned", "message.deleted", "user.erased"];
const ROOM_EVENTS_MAX = 200;
/** Events that stand in the history as messages of kind `system`, with their own `seq`. */
const SYSTEM = ["room.created", "room.updated", "member.joined", "member.left", "member.role_changed", "user.erased"];

/** Live events of a room that is new here begin after its `last_seq`, so that is its position. */
export function hold(chat: Chat, room: Room): Held {
  const { last_seq, room_id } = room;
  const known = chat.rooms.get(room_id);
  const { read_seq, unread, ...rest } = room;
  const { roomSeq = 0, pinsSeq = 0, members = [], member_count } = known ?? {};
  // The preview of members must not shorten what is known of them.
  if (rest.members && rest.members.length < members.length && rest.member_count === member_count) delete rest.members;
  if (last_seq < roomSeq) for (const key of ["title", "members", "member_count"] as const) delete rest[key];
  if (last_seq < pinsSeq) delete rest.pins;
  const held: Held = known ? Object.assign(known, rest) : {
    messages: new Map(), from: last_seq + 1, position: last_seq, hasOlder: true, loading: false, quoted: new Map(), marks: new Map(), typing: [],
    seen: 0, seenTold: 0, deliveredTold: 0, counted: last_seq, divider: 0, named: false, stale: false, roomSeq: 0, pinsSeq: 0, roomEvents: [], ...rest,
  };
  held.stale = false;
  chat.rooms.set(room_id, held);
  if (rest.members) held.roomSeq = last_seq;
  if (rest.pins) held.pinsSeq = last_seq;
  // It may have been read before events that have come since.
  for (const frame of held.roomEvents) roomEvent(chat, held, frame);
  held.roomEvents = held.roomEvents.filter(({ seq = 0 }) => seq > Math.min(held.roomSeq, held.pinsSeq));
  people(chat, held, room.members ?? []);
  for (const mark of room.watermarks ?? []) advance(held, mark);
  // What a room is to this user is told whole: what is not there is not so.
  if (read_seq !== undefined) {
    Object.assign(held, { muted_until: room.muted_until ?? null, archived: room.archived ?? false });
    own(chat, held, { read_seq, unread }, last_seq);
  }
  return held;
}

export function people(chat: Chat, held: Held, members: Member[]): void {
  for (const { user_id, name, read_seq = 0, delivered_seq = 0 } of members) {
    if (name) chat.names.set(user_id, name);
    advance(held, { user_id, read_seq, delivered_seq });
  }
}

/** Watermarks only advance. */
export function advance(held: Held, { user_id, read_seq = 0, delivered_seq = 0 }: Partial<Watermark>): void {
  if (!user_id) return;
  const { read, delivered } = held.marks.get(user_id) ?? { read: 0, delivered: 0 };
  held.marks.set(user_id, { read: Math.max(read, read_seq), delivered: Math.max(delivered, delivered_seq, read_seq) });
}

/** What the room is to this user, as the server says: taken unless more was read here than it knows of. */
export function own(chat: Chat, held: Held, { read_seq = 0, unread = 0 }: Own, last_seq: number): void {
  held.seenTold = Math.max(held.seenTold, read_seq);
  if (read_seq >= held.seen) {
    if (!held.unread && unread > 0 && !(held.room_id === chat.open && chat.looking)) held.divider = read_seq;
    Object.assign(held, { seen: read_seq, unread, counted: Math.max(held.counted, last_seq) });
  }
  recount(chat, held);
}

/** Counts what is unread where every message since then is held; else the server's number stands. */
export function recount(chat: Chat, held: Held): void {
  const since = [...held.messages.values()].filter((message) => message.seq > held.seen && message.seq >= held.from && isNews(chat, message));
  held.named = since.some((message) => isNamed(chat, message)) || (held.named && held.from > held.seen + 1);
  if (held.from <= held.seen + 1) held.unread = Math.min(UNREAD_MAX, since.length);
}

const history = ({ room_id }: Held, where: Partial<Page>): Request[] =>
  [{ type: "history.get", data: { room_id, limit: PAGE_MESSAGES, ...where } }];

/** The page before what is shown of the open room. The newest page is the one before nothing. */
export function older(chat: Chat, newestOnly = false): Request[] {
  const held = chat.rooms.get(chat.open);
  if (!held || held.loading || (newestOnly && held.messages.size > 0)) return [];
  const { hasOlder, from } = held.island ?? held;
  if (!hasOlder) return [];
  held.loading = true;
  return history(held, { before_seq: from });
}

/** Below an island: the page around its end reaches further. */
export function newer(chat: Chat): Request[] {
  const held = chat.rooms.get(chat.open);
  if (!held?.island || held.loading) return [];
  held.loading = true;
  return history(held, { around_seq: held.island.to, limit: AROUND_MESSAGES });
}

/** Shows a message, wherever in the history it is. */
export function jump(chat: Chat, room_id: string, seq: number): Request[] {
  const held = chat.rooms.get(room_id);
  if (!held) return [];
  chat.jump = { room_id, seq };
  if (shown(held).some((message) => message.seq === seq)) return [];
  if (held.messages.has(seq)) return newest(held), [];
  held.loading = true;
  return history(held, { around_seq: seq, limit: PAGE_MESSAGES });
}

/** Back to where the live messages are. */
export function newest(held: Held): void {
  held.island = undefined;
  for (const seq of held.messages.keys()) if (seq < held.from) held.messages.delete(seq);
}

/** Asks for one message that is not held, to be quoted. */
export function quote(held: Held, seq: number): Request[] {
  if (held.messages.has(seq) || held.quoted.has(seq)) return [];
  held.quoted.set(seq, null);
  return history(held, { around_seq: seq, limit: 1 });
}

/** The quotes and pins of the open room that are not held, a few at a time. */
export function quotes(chat: Chat): Request[] {
  const held = chat.rooms.get(chat.open);
  if (!held || held.loading) return [];
  const wanted = [...(held.pins ?? []).slice(0, 3).map((pin) => pin.message_seq), ...shown(held).map((message) => message.reply_to_seq ?? 0)];
  return [...new Set(wanted)].filter((seq) => seq > 0 && !held.messages.has(seq) && !held.quoted.has(seq)).slice(0, QUOTES_AT_ONCE).flatMap((seq) => quote(held, seq));
}

/** Fetches what was missed. `last_seq`: how far that is at least. */
export function catchUp(chat: Chat, held: Held, last_seq: number): Request[] {
  if (held.catching) {
    held.catching.need = Math.max(held.catching.need, last_seq);
    return [];
  }
  if (last_seq - held.position > CATCH_UP_EVENTS_MAX) return afresh(chat, held, last_seq);
  held.catching = { cursor: held.position, live: 0, need: last_seq, tries: 0, waiting: [] };
  return history(held, { after_seq: held.position });
}

/** After a reconnect: from where the pages had come. */
export function goOn(chat: Chat, held: Held, last_seq: number): Request[] {
  const { cursor } = held.catching ?? { cursor: held.position };
  held.catching = undefined;
  if (last_seq - cursor > CATCH_UP_EVENTS_MAX) return afresh(chat, held, last_seq);
  if (last_seq <= held.position) return [];
  held.catching = { cursor, live: 0, need: last_seq, tries: 0, waiting: [] };
  return history(held, { after_seq: cursor });
}

/** Begins at the newest page: what is held may be gone, or is too far behind. */
export function afresh(chat: Chat, held: Held, last_seq: number): Request[] {
  Object.assign(held, { messages: new Map(), quoted: new Map(), from: last_seq + 1, position: last_seq, hasOlder: true, loading: false, catching: undefined, island: undefined });
  return older(chat, true);
}

/** A page of `history.get`. */
export function page(chat: Chat, asked: Page, data: Data): Request[] {
  const { messages = [], has_more = false, last_seq, floor_seq = 0 } = data;
  const held = chat.rooms.get(asked.room_id);
  if (!held) return [];
  if (floor_seq > 0) dropped(held, floor_seq);
  if (asked.after_seq !== undefined) return last_seq === undefined ? [] : caught(chat, held, asked.after_seq, data, last_seq);
  if (asked.limit === 1) {
    for (const message of messages) if (message.seq === asked.around_seq) held.quoted.set(message.seq, renewed(undefined, message, true));
    // Quoted as one that was deleted is.
    const { around_seq: seq = 0 } = asked;
    if (seq > 0 && seq <= floor_seq) held.quoted.set(seq, tombstone({ seq, changed_seq: seq, kind: "text", created_at: "", mine: [], mine_seq: 0 }, new Date(0).toISOString(), seq));
    return [];
  }
  held.loading = false;
  const [first, last] = [messages[0]?.seq, messages.at(-1)?.seq];
  // What is not there cannot be gone to.
  if (asked.around_seq !== undefined && asked.around_seq === chat.jump?.seq && !messages.some(({ seq }) => seq === asked.around_seq)) chat.jump = undefined;
  if (last_seq === undefined) return [];
  if (asked.around_seq === undefined) {
    const stretch = held.island && asked.before_seq === held.island.from ? held.island : held;
    // Asked for before the room was begun afresh.
    if (asked.before_seq !== stretch.from) return [];
    Object.assign(stretch, { hasOlder: has_more, from: Math.min(stretch.from, first ?? stretch.from) });
    const { island } = held;
    // The newest messages reach down to where was jumped to: one stretch.
    if (island && stretch === held && held.from <= island.to) Object.assign(held, island.from < held.from && { from: island.from, hasOlder: island.hasOlder }, { island: undefined });
  } else if (first !== undefined && last !== undefined) {
    const { island } = held;
    if (last >= held.from || (held.messages.size === 0 && last >= held.position)) {
      Object.assign(held, { from: Math.min(held.from, first, island && first <= island.to ? island.from : first), island: undefined, hasOlder: true });
      newest(held);
    } else if (island && first <= island.to && last >= island.from) {
      Object.assign(island, { from: Math.min(island.from, first), to: Math.max(island.to, last) });
    } else {
      newest(held);
      held.island = { from: first, to: last, hasOlder: true };
    }
  }
  for (const message of messages) merge(chat, held, message, true);
  recount(chat, held);
  // A page that was read before an event came here has not what that event changed.
  const { catching } = held;
  if (catching) {
    catching.need = Math.max(catching.need, catching.live);
    if (last_seq >= catching.cursor) return [];
    catching.cursor = last_seq;
    held.position = Math.min(held.position, last_seq);
    return history(held, { after_seq: last_seq });
  }
  if (last_seq >= held.position) return [];
  const reached = held.position;
  held.position = last_seq;
  return catchUp(chat, held, reached);
}

/** Messages up to this one are no longer kept, so they are not shown either. */
function dropped(held: Held, floor: number): void {
  for (const seq of held.messages.keys()) if (seq <= floor) held.messages.delete(seq);
  for (const [seq, quoted] of held.quoted) if (quoted && seq <= floor) held.quoted.set(seq, tombstone(quoted, quoted.deleted_at ?? new Date(0).toISOString(), quoted.changed_seq));
  held.pins = held.pins?.filter((pin) => pin.message_seq > floor);
  if ((held.last_message?.seq ?? floor + 1) <= floor) held.last_message = null;
  if (held.island && held.island.to <= floor) held.island = undefined;
  for (const stretch of [held, held.island]) if (stretch && stretch.from <= floor + 1) Object.assign(stretch, { from: floor + 1, hasOlder: false });
}

function caught(chat: Chat, held: Held, after: number, { messages = [], has_more = false, next_after_seq }: Data, last_seq: number): Request[] {
  const { catching } = held;
  // One that was asked for before, and is asked for no more.
  if (catching?.cursor !== after) return [];
  for (const message of messages) {
    merge(chat, held, message, true);
    const { event, seq, created_at: ts } = message;
    if (event?.type === "user.erased" && seq > held.position) erased(chat, held, event, seq);
    if (event && seq > held.position) roomEvent(chat, held, { type: event.type, seq, ts, data: event });
  }
  catching.cursor = Math.max(after, next_after_seq ?? last_seq);
  catching.tries = catching.cursor > after ? 0 : catching.tries + 1;
  // A page may have been read before what is needed happened; a server that never comes so far is believed at last.
  if ((has_more || catching.cursor < catching.need) && catching.tries <= TRIES_MAX) return history(held, { after_seq: catching.cursor });
  const reached = catching.cursor;
  held.catching = undefined;
  held.position = Math.max(held.position, reached);
  for (const frame of catching.waiting) if ((frame.seq ?? 0) > reached) apply(chat, held, frame, frame.seq ?? 0);
  held.position = Math.max(held.position, catching.live);
  recount(chat, held);
  // Its pins are not in the pages.
  return held.room_id === chat.open ? [{ type: "room.get", data: { room_id: held.room_id } }] : [];
}

/** A durable event of a room that is held. */
export function durable(chat: Chat, held: Held, frame: Frame, seq: number): Request[] {
  if (seq <= held.position) return [];
  const requests = seq > held.position + 1 && !held.catching ? catchUp(chat, held, seq - 1) : [];
  const { catching } = held;
  // Begun afresh: the event is part of what the newest page tells.
  if (!catching && seq <= held.position) return requests;
  if (!catching) {
    apply(chat, held, frame, seq);
    held.position = seq;
    if (frame.data?.reactions_more) {
      // It changed more than it tells: that is read.
      held.position = seq - 1;
      requests.push(...catchUp(chat, held, seq));
    }
  } else if (seq > catching.live) {
    if (seq > catching.live + 1) catching.need = Math.max(catching.need, seq - 1);
    catching.live = seq;
    if (frame.data?.message) apply(chat, held, frame, seq);
    else if (catching.waiting.length < WAITING_MAX) catching.waiting.push(frame);
    else catching.need = seq;
  }
  recount(chat, held);
  return requests;
}

function apply(chat: Chat, held: Held, frame: Frame, seq: number): void {
  const { type, ts = "", data = {} } = frame;
  const { message, message_seq = 0, user_id = "", emoji = "", count = 0, added = false } = data;
  if (message) merge(chat, held, message, false);
  if (type === "message.deleted")
    change(held, message_seq, (known) => (seq > known.changed_seq ? tombstone(known, data.deleted_at ?? ts, seq) : known));
  if (type === "reaction.updated") change(held, message_seq, (known) => {
    const { [emoji]: _, ...reactions } = known.reactions ?? {};
    const is = seq > known.changed_seq ? { changed_seq: seq, reactions: count > 0 ? { ...known.reactions, [emoji]: { count } } : reactions } : {};
    if (user_id !== chat.me || seq <= known.mine_seq) return { ...known, ...is };
    return { ...known, ...is, mine_seq: seq, mine: [...known.mine.filter((one) => one !== emoji), ...(added ? [emoji] : [])] };
  });
  if (type === "message.pinned" || type === "message.unpinned") change(held, message_seq, (known) => ({ ...known, changed_seq: Math.max(seq, known.changed_seq) }));
  if (type === "user.erased") erased(chat, held, data, seq);
  if (OF_ROOM.includes(type)) {
    roomEvent(chat, held, frame);
    held.roomEvents = [...held.roomEvents, frame].slice(-ROOM_EVENTS_MAX);
  }
  if (SYSTEM.includes(type)) merge(chat, held, { seq, changed_seq: seq, kind: "system", created_at: ts, sender_id: data.actor_id, event: { ...data, type } }, false);
}

/** What an event does to the room's title, members and pins, unless these are known as of later. */
function roomEvent(chat: Chat, held: Held, { type, seq = 0, data = {} }: Frame): void {
  const { message_seq = 0, user_id = "", name = "", role, title, owner_id } = data;
  if (seq > held.pinsSeq) {
    // Read before: a tombstone is not pinned. What is pinned and not held is asked for, and shown as it is.
    if (type === "user.erased") held.pins = (held.pins ?? []).filter((pin) => !held.messages.get(pin.message_seq)?.deleted_at);
    const pins = (held.pins ?? []).filter((pin) => pin.message_seq !== message_seq);
    if (type === "message.pinned") held.pins = [{ message_seq }, ...pins];
    if (type === "message.unpinned" || type === "message.deleted") held.pins = pins;
  }
  if (seq <= held.roomSeq) return;
  const rest = (held.members ?? []).filter((member) => member.user_id !== user_id);
  const is = rest.length === (held.members ?? []).length ? 0 : 1;
  if (name && user_id) chat.names.set(user_id, name);
  // What is absent stays.
  if (type === "room.updated" && title !== undefined) held.title = title;
  if (type === "member.joined") Object.assign(held, { members: [...rest, { user_id, name, role }], member_count: (held.member_count ?? rest.length) + 1 - is });
  if (type === "user.erased" && is) Object.assign(held, { members: rest, member_count: Math.max(0, (held.member_count ?? rest.length + 1) - 1) });
  if (type === "user.erased" && owner_id) held.members = held.members?.map((one) => (one.user_id === owner_id ? { ...one, role: "owner" } : one));
  if (type === "member.left") Object.assign(held, { members: rest, member_count: Math.max(0, (held.member_count ?? rest.length + 1) - 1) });
  if (type === "member.role_changed") held.members = held.members?.map((one) => (one.user_id === user_id ? { ...one, role } : one));
}

/** A user was erased: one event says so of all their messages here, none of which has a newer `changed_seq` by it. */
function erased(chat: Chat, held: Held, { user_id = "", erased_as, deleted_at = "", reactions = [] }: Data, seq: number): void {
  const known = new Set([...held.messages.keys(), ...held.quoted.keys(), held.last_message?.seq ?? 0]);
  for (const one of known) change(held, one, (kept) => {
    const mentions = kept.mentions?.filter((id) => id !== user_id) ?? [];
    if (kept.kind === "system" || (kept.sender_id !== user_id && kept.sender_id !== erased_as)) return { ...kept, mentions };
    return { ...tombstone(kept, kept.deleted_at ?? deleted_at, kept.changed_seq), sender_id: erased_as };
  });
  for (const { message_seq, emoji, count } of reactions) change(held, message_seq, (kept) => {
    const { [emoji]: _, ...rest } = kept.reactions ?? {};
    return seq < kept.changed_seq ? kept : { ...kept, changed_seq: seq, reactions: count > 0 ? { ...rest, [emoji]: { count } } : rest };
  });
  held.marks.delete(user_id);
  held.typing = held.typing.filter((id) => id !== user_id);
  chat.names.delete(user_id);
  chat.presence.delete(user_id);
}

const tombstone = (known: Kept, deleted_at: string, changed_seq: number): Kept =>
  ({ ...known, text: "", deleted_at, changed_seq, reactions: {}, mine: [], mine_seq: changed_seq, mentions: [] });

/** Changes a message wherever it is known. */
function change(held: Held, seq: number, how: (known: Kept) => Kept): void {
  const [kept, quoted, last] = [held.messages.get(seq), held.quoted.get(seq), held.last_message];
  if (kept) held.messages.set(seq, how(kept));
  if (quoted) held.quoted.set(seq, how(quoted));
  if (last?.seq === seq) held.last_message = how({ mine: [], mine_seq: 0, ...last });
}

/** The newer of the two states. Whose reactions are one's own only replies tell, and one's own events. */
function renewed(known: Kept | undefined, message: Message, isReply: boolean): Kept {
  const told = isReply && message.changed_seq >= (known?.mine_seq ?? 0);
  const mine = told ? Object.entries(message.reactions ?? {}).filter(([, reaction]) => reaction.mine).map(([emoji]) => emoji) : known?.mine ?? [];
  const newer = !known || message.changed_seq > known.changed_seq ? message : known;
  return { ...newer, mine, mine_seq: told ? message.changed_seq : known?.mine_seq ?? 0 };
}

function merge(chat: Chat, held: Held, message: Message, isReply: boolean): void {
  const { seq, sender_id, kind } = message;
  if (sender_id === chat.me && kind !== "system") {
    chat.outbox = chat.outbox.filter((one) => one.client_msg_id !== message.client_msg_id || one.room_id !== held.room_id);
    Object.assign(held, { seen: Math.max(held.seen, seq), seenTold: Math.max(held.seenTold, seq) });
  }
  // Who writes has read what stands above: the server takes it so, too, and tells no receipt of it.
  if (sender_id && kind !== "system") advance(held, { user_id: sender_id, read_seq: seq });
  const { last_message: last, island, quoted } = held;
  if (!last || seq > last.seq || (seq === last.seq && message.changed_seq > last.changed_seq)) held.last_message = message;
  if (quoted.get(seq)) quoted.set(seq, renewed(quoted.get(seq) ?? undefined, message, isReply));
  // Below `from` only a page may add, or a hole would look like history.
  if (seq < held.from && !(island && seq >= island.from && seq <= island.to)) return;
  const known = held.messages.get(seq);
  held.messages.set(seq, renewed(known, message, isReply));
  if (known || seq <= held.counted || seq <= held.seen || !isNews(chat, message)) return;
  if (!held.unread && !(held.room_id === chat.open && chat.looking)) held.divider = held.seen;
  held.unread = Math.min(UNREAD_MAX, (held.unread ?? 0) + 1);
  held.named ||= isNamed(chat, message);
  if (held.archived && !held.muted_until) held.archived = false;
}
