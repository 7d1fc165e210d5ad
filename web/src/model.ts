// What this user knows: the shape of it, and what follows from it alone.
//
// Invariants of a room: it holds every message from `from` to `position` in its state at `position` or
// later, and those of `island`, if there is one, too. `position` moves only over what was applied.
//
// Next: history.ts.
import type { Attachment, Change, FileKind, Frame, Hit, Limits, Message, Presence, Room } from "./protocol";

/** A message with which reactions are one's own, as of the event `mine_seq`: events do not say it. */
export interface Kept extends Message { mine: string[]; mine_seq: number }
/** What was missed is being fetched: the position stays, and what is no whole message waits. */
export interface Catching {
  /** Where the next page begins; never a position to resume from. */
  cursor: number;
  /** The last live event that came. */
  live: number;
  /** The last page must reach this. */
  need: number;
  /** Pages in a row that brought nothing. */
  tries: number;
  waiting: Frame[];
}
/** A stretch of the past that was jumped to, shown instead of the newest messages. */
export interface Island { from: number; to: number; hasOlder: boolean }
export interface Held extends Room {
  messages: Map<number, Kept>; from: number; position: number; hasOlder: boolean; loading: boolean;
  catching?: Catching; island?: Island;
  /** Single messages outside of what is held, for quotes and pins; null while they are asked for, or if they do not exist. */
  quoted: Map<number, Kept | null>;
  marks: Map<string, { read: number; delivered: number }>;
  typing: string[];
  /** Read up to here, on this page or on another device, and what of it the server was told. */
  seen: number; seenTold: number; deliveredTold: number;
  /** `unread` is of messages up to here. */
  counted: number;
  /** The line above what is new stands after this message; 0: nowhere. */
  divider: number;
  /** A message newer than `seen` mentions this user. */
  named: boolean;
  /** Title and members are known as of this event, pins as of that, and the last changes of them, to be
   * made again over a state that was read before. */
  roomSeq: number; pinsSeq: number; roomEvents: Frame[];
  membersCursor?: string | null;
  /** Not told of since the connection was made. */
  stale: boolean;
}
export interface Unsent {
  room_id: string; client_msg_id: string; text: string; created_at: string; reply_to_seq?: number; mentions?: string[];
  kind?: FileKind; files?: Attachment[];
  sending?: boolean; seq?: number; error?: string;
}
/** A change of a message that is shown before it is stored. */
export interface Op { id: number; change: Change; sending: boolean; seq?: number; error?: string }
export interface Found { query: string; room_id?: string; hits: Hit[]; busy: boolean; next?: string | null }
export interface Chat {
  me: string; epoch: string; rooms: Map<string, Held>; names: Map<string, string>; outbox: Unsent[]; ops: Op[];
  open: string; notice: string; limits?: Limits;
  /** What the server does not know, and what it does not do for now. */
  lacks: Set<string>; paused: string[];
  presence: Map<string, Presence>; watched: Map<string, number>; blocked: Map<string, string>;
  /** What this user chose, and whether the page is looked at. */
  state: string; stateTold: string; looking: boolean;
  typingIn: string; typingToldAt: number; typingDue: boolean; receiptsAt: number;
  jump?: { room_id: string; seq: number }; found?: Found; archivedAsked: boolean; nextOp: number;
}

export const UNREAD_MAX = 100;
/** Receipts are told to others in rooms of at most so many, and shown in these. */
export const TICKS_MEMBERS_MAX = 100;
/** Shown only once the server has answered it. */
const ASKED_FIRST = ["search", "user.blocks", "user.block", "user.unblock"];

export const empty = (me: string, outbox: Unsent[] = []): Chat => ({
  me, epoch: "", rooms: new Map(), names: new Map(), outbox, ops: [], open: "", notice: "", lacks: new Set(ASKED_FIRST), paused: [],
  presence: new Map(), watched: new Map(), blocked: new Map(), state: "online", stateTold: "online", looking: true,
  typingIn: "", typingToldAt: -Infinity, typingDue: false, receiptsAt: -Infinity, archivedAsked: false, nextOp: 1,
});

/** Whether the server knows the request, as far as it has said. */
export const can = (chat: Chat, type: string): boolean => !chat.lacks.has(type);
export const others = (chat: Chat, held: Room) => (held.members ?? []).filter((member) => member.user_id !== chat.me);
export const myRole = (chat: Chat, held: Room) => held.members?.find((member) => member.user_id === chat.me)?.role ?? "member";
export const isAdmin = (chat: Chat, held: Room) => held.kind === "group" && myRole(chat, held) !== "member";
export const isMuted = (held: Room, now: number) => Boolean(held.muted_until) && Date.parse(held.muted_until ?? "") > now;
export const isNamed = (chat: Chat, { mentions = [] }: Message) => mentions.includes(chat.me) || mentions.includes("all");
/** Written by another person and not taken back: what can be unread. */
export const isNews = (chat: Chat, message: Message) => message.kind !== "system" && message.sender_id !== chat.me && !message.deleted_at;

/** What is shown of a room, by `seq`: the island, or all from `from` on. */
export function shown(held: Held): Kept[] {
  const { island, from } = held;
  const inside = (seq: number) => (island ? seq >= island.from && seq <= island.to : seq >= from);
  return [...held.messages.values()].filter(({ seq }) => inside(seq)).sort((one, other) => one.seq - other.seq);
}
