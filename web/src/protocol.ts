// The words of the wire protocol that this page speaks.
//
// What arrives is not trusted to be complete: every field of `Data` is optional, and an unknown `type`
// passes through, to be ignored.
//
// Next: connection.ts.
export type Role = "owner" | "admin" | "member";
export interface Watermark { user_id: string; read_seq: number; delivered_seq: number }
export interface Member extends Partial<Watermark> { user_id: string; name: string; role?: Role }
export interface Reaction { count: number; mine?: boolean }
export type FileKind = "image" | "file" | "voice";
export interface SendAttachment { upload_id: string; width?: number; height?: number; duration_ms?: number; placeholder?: string }
export interface Attachment extends SendAttachment { name: string; size: number; content_type: string }
export interface Message {
  seq: number; changed_seq: number; kind: string; created_at: string; text?: string | null; revision?: number;
  sender_id?: string | null; client_msg_id?: string | null; edited_at?: string | null; deleted_at?: string | null;
  reply_to_seq?: number | null; mentions?: string[]; reactions?: Record<string, Reaction>; attachments?: Attachment[];
  /** Of kind `system` only: the change of members or room that the message stands for. */
  event?: Data & { type: string };
}
export interface Pin { message_seq: number }
/** What a room is to this user alone. */
export interface Own { read_seq?: number; unread?: number; muted_until?: string | null; archived?: boolean }
export interface Room extends Own {
  room_id: string; kind: string; last_seq: number; created_at?: string; title?: string | null; members?: Member[];
  member_count?: number; pins?: Pin[] | null; last_message?: Message | null; recovered?: boolean; reason?: string; watermarks?: Watermark[];
}
export interface Presence { user_id: string; state: string; last_seen_at?: string | null; name?: string }
export interface Hit { room_id: string; message: Message }
export interface Limits { ping_interval_ms: number; ping_timeout_ms: number; typing_interval_ms?: number; text_chars?: number }
export interface Resume { epoch: string; rooms: Record<string, number> }
/** Everything that may stand in the `data` of a reply or an event. */
export interface Data extends Own {
  user_id?: string; name?: string; actor_id?: string; role?: Role; title?: string | null; picture?: string | null; room_id?: string; room?: Room;
  epoch?: string; rooms?: Room[]; next_cursor?: string | null; seq?: number; members?: Member[]; changed?: boolean;
  message?: Message; message_seq?: number; messages?: Message[]; has_more?: boolean; last_seq?: number; next_after_seq?: number;
  /** Messages up to this one are no longer kept. */
  floor_seq?: number;
  emoji?: string; added?: boolean; count?: number; deleted_at?: string; delivered_seq?: number; user_ids?: string[];
  users?: Presence[]; until?: string; blocked?: boolean; hits?: Hit[]; next_before?: string | null; paused?: string[];
  /** Of `user.erased`. */
  erased_as?: string; owner_id?: string; reactions?: { message_seq: number; emoji: string; count: number }[]; reactions_more?: boolean;
  /** Of `upload.create` and `attachment.urls`. */
  upload_id?: string; url?: string; fields?: Record<string, string>; expires_at?: string; urls?: { upload_id: string; url: string; expires_at: string }[]; missing?: string[];
  limits?: Limits; server_time?: string; token_expires_at?: string; reconnect_after_ms?: number; retry_after_ms?: number;
}
export interface Refusal { code: string; message: string; temporary: boolean; retry_after_ms?: number }
export interface Frame { type: string; id?: number | null; room_id?: string; seq?: number; ts?: string; data?: Data; error?: Refusal }
export interface Page { room_id: string; limit: number; before_seq?: number; after_seq?: number; around_seq?: number }
export interface Send { room_id: string; client_msg_id: string; kind: "text" | FileKind; text?: string; attachments?: SendAttachment[]; reply_to_seq?: number; mentions?: string[] }
export interface Named { room_id: string; message_seq: number }
export type Marks = { rooms: Record<string, number> };
/** A change of one message. */
export type Change =
  | { type: "message.edit"; data: Named & { text: string; expected_revision?: number } }
  | { type: "reaction.add" | "reaction.remove"; data: Named & { emoji: string } }
  | { type: "message.delete" | "message.pin" | "message.unpin" | "message.report"; data: Named };
/** A change of a room, its members, or what it is to this user. */
export type RoomChange =
  | { type: "room.leave"; data: { room_id: string } }
  | { type: "room.update"; data: { room_id: string; title: string } }
  | { type: "room.members.add" | "room.members.remove"; data: { room_id: string; user_ids: string[] } }
  | { type: "room.role.set"; data: { room_id: string; user_ids: string[]; role: Role } }
  | { type: "room.mute"; data: { room_id: string; until?: string | null } }
  | { type: "room.archive"; data: { room_id: string; archived: boolean } };
export type Request = Change | RoomChange
  | { type: "auth"; data: { token: string; device_id: string; client: { name: string; version: string }; resume?: Resume } }
  | { type: "auth.refresh"; data: { token: string } }
  | { type: "rooms.list"; data: { cursor?: string; archived?: boolean } }
  | { type: "room.create"; data: { kind: "direct" | "group"; member_ids: string[]; title?: string; client_room_id: string } }
  | { type: "room.get"; data: { room_id: string } }
  | { type: "room.members.list"; data: { room_id: string; cursor?: string } }
  | { type: "message.send"; data: Send }
  | { type: "upload.create"; data: { room_id: string; kind: FileKind; name: string; size: number; content_type: string; sha256?: string } }
  | { type: "attachment.urls"; data: { room_id: string; upload_ids: string[] } }
  | { type: "history.get"; data: Page }
  | { type: "typing.start" | "typing.stop"; data: { room_id: string } }
  | { type: "receipt.delivered" | "receipt.read"; data: Marks }
  | { type: "presence.set"; data: { state: string } }
  | { type: "presence.subscribe"; data: { user_ids: string[] } }
  | { type: "user.block" | "user.unblock"; data: { user_id: string } }
  | { type: "user.blocks"; data: { cursor?: string } }
  | { type: "search"; data: { query: string; room_id?: string; before?: string } }
  | { type: "pong" };

/** Requests that are not answered; refused they are, if they had an id. */
export const UNANSWERED: ReadonlySet<string> = new Set(["typing.start", "typing.stop", "receipt.delivered", "receipt.read"]);

/** A UUIDv7: 48 bits of time, the rest random. (`crypto.randomUUID` is a v4, and missing outside https.) */
export function uuid7(nowMs: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const random = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-${"89ab"[bytes[15]! & 3]}${random.slice(3, 6)}-${random.slice(6, 18)}`;
}
