// The words of the wire protocol that this page speaks.
//
// What arrives is not trusted to be complete: every field of `Data` is optional, and an unknown `type`
// passes through, to be ignored.
//
// Next: connection.ts.
export interface Member { user_id: string; name: string }
export interface Message {
  seq: number; changed_seq: number; kind: string; created_at: string; text?: string | null;
  sender_id?: string | null; client_msg_id?: string | null; edited_at?: string | null; deleted_at?: string | null;
  /** Of kind `system` only: the change of members or room that the message stands for. */
  event?: Data & { type: string };
}
export interface Room {
  room_id: string; kind: string; last_seq: number; created_at?: string; title?: string | null; members?: Member[];
  last_message?: Message | null; unread?: number; read_seq?: number; recovered?: boolean; reason?: string;
}
export interface Resume { epoch: string; rooms: Record<string, number> }
/** Everything that may stand in the `data` of a reply or an event. */
export interface Data {
  user_id?: string; name?: string; actor_id?: string; role?: string; title?: string | null; room_id?: string; room?: Room;
  epoch?: string; rooms?: Room[]; next_cursor?: string | null; unread?: number; read_seq?: number; seq?: number;
  message?: Message; message_seq?: number; messages?: Message[]; has_more?: boolean; last_seq?: number; next_after_seq?: number;
  limits?: { ping_interval_ms: number; ping_timeout_ms: number }; server_time?: string; token_expires_at?: string;
  reconnect_after_ms?: number; retry_after_ms?: number;
}
export interface Refusal { code: string; message: string; temporary: boolean; retry_after_ms?: number }
export interface Frame { type: string; id?: number | null; room_id?: string; seq?: number; ts?: string; data?: Data; error?: Refusal }
export interface Page { room_id: string; limit: number; before_seq?: number; after_seq?: number }
export type Request =
  | { type: "auth"; data: { token: string; device_id: string; client: { name: string; version: string }; resume?: Resume } }
  | { type: "auth.refresh"; data: { token: string } }
  | { type: "rooms.list"; data: { cursor?: string } }
  | { type: "room.create"; data: { kind: "direct"; member_ids: string[]; client_room_id: string } }
  | { type: "message.send"; data: { room_id: string; client_msg_id: string; kind: "text"; text: string } }
  | { type: "history.get"; data: Page }
  | { type: "pong" };

/** A UUIDv7: 48 bits of time, the rest random. (`crypto.randomUUID` is a v4, and missing outside https.) */
export function uuid7(nowMs: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const random = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-${"89ab"[bytes[15]! & 3]}${random.slice(3, 6)}-${random.slice(6, 18)}`;
}
