// What is shown, and what the user can do: the words between view.ts and the page.
import type { Draft } from "./outbox";
import type { Attachment, FileKind, Role, RoomChange } from "./protocol";
import type { Part } from "./text";

export interface Mark { emoji: string; count: number; mine: boolean }
export interface Quote { seq: number; author: string; text: string }
export interface FileView extends Attachment { kind: FileKind; room_id: string }
/** A file on its way, or there and not sent yet. */
export interface TrayItem { id: number; kind: FileKind; name: string; size: number; state: "waiting" | "going" | "there" | "failed"; part: number; error: string }
export interface Line {
  key: string; kind: "mine" | "theirs" | "system" | "day" | "new"; text: string; seq?: number; author: string; at: string;
  parts?: Part[]; big?: boolean; first?: boolean; edited?: boolean; deleted?: boolean; pinned?: boolean; named?: boolean; folded?: boolean;
  state?: "sending" | "failed" | "sent" | "delivered" | "read"; hint?: string; error?: string;
  quote?: Quote; marks?: Mark[]; files?: FileView[];
  /** What was not stored, by its id, to be tried again. */
  unsent?: string; op?: number;
  /** Whom its words mention: names and ids. */
  says?: [string, string][];
  can?: { edit: boolean; remove: boolean; pin: boolean; report: boolean };
}
export interface Row {
  key: string; title: string; preview: string; unread: number; open: boolean; at: string; muted: boolean; named: boolean; archived: boolean;
  typing: boolean; presence: string; isGroup: boolean; canMute: boolean;
}
export interface Person {
  id: string; name: string; role: Role; me: boolean; presence: string; seen: string; blocked: boolean;
  can: { remove: boolean; promote: boolean; demote: boolean; block: boolean };
}
export interface RoomView {
  key: string; title: string; ownTitle: string; isGroup: boolean; subtitle: string; presence: string; typing: string; isAdmin: boolean;
  people: Person[]; count: number; more: boolean; pins: Quote[]; muted: boolean; archived: boolean; canMute: boolean; canBlock: boolean;
  /** With whom one cannot talk, since one blocked them. */
  blocked: string; blockedName: string; hasOlder: boolean; inPast: boolean; loading: boolean; unread: number;
  mentions: { id: string; name: string }[]; reports: boolean;
}
export interface HitView { room_id: string; seq: number; title: string; author: string; text: string; at: string }
export interface View {
  page: string; me: string; state: string; tone: string; paused: string; notice: string; open: string; title: string; unread: number;
  rooms: Row[]; away: Row[]; lines: Line[]; room?: RoomView; jump?: number; presence: string;
  canSearch: boolean; canArchive: boolean; canPresence: boolean; canFiles: boolean; textMax: number; tray?: TrayItem[];
  found?: { query: string; here: boolean; busy: boolean; more: boolean; hits: HitView[] };
}
export type RoomDone = RoomChange extends infer One ? (One extends { type: infer Type; data: infer Held } ? { type: Type; data: Omit<Held, "room_id"> } : never) : never;
export interface Actions {
  login(name: string): void; leave(): void; state(state: string): void;
  talk(name: string): void; group(title: string, names: string[]): void; open(key: string): void;
  send(draft: Draft): void; edit(seq: number, text: string): void; react(seq: number, emoji: string, add: boolean): void;
  remove(seq: number): void; pin(seq: number, is: boolean): void; report(seq: number): void;
  attach(files: Iterable<File>, duration_ms?: number): void; detach(id: number): void; attachAgain(id: number): void; said(notice: string): void;
  fileUrl(room_id: string, upload_id: string, fresh?: boolean): Promise<string>;
  retry(id: string): void; discard(id: string): void; retryOp(id: number, isWanted: boolean): void;
  older(): void; newer(): void; newest(): void; jump(seq: number): void; jumped(): void; seen(seq: number): void; typing(is: boolean): void;
  search(query: string, here: boolean): void; searchOn(): void; visit(room_id: string, seq: number): void;
  room(key: string, change: RoomDone): void; invite(names: string[]): void; morePeople(): void; block(id: string, is: boolean): void; away(): void; hush(): void;
}
