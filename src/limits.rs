//! Every bound of the service, in one place, related to each other by const assertions.
//!
//! A bound is in the unit its name ends with. What operators may change is in
//! [`crate::chat::CoreConfig`], whose defaults are these; nothing may exceed what stands here.

/// Largest WebSocket message taken from a client, bytes. Above it: close 1009.
pub const FRAME_BYTES_MAX: usize = if cfg!(feature = "echo") {
    64 << 20
} else {
    65_536
};
/// Largest HTTP request head of an upgrade, bytes. Above it: 431.
pub const HANDSHAKE_BYTES_MAX: usize = 8 << 10;
/// Longest time from accept to the end of the upgrade request, ms.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;
/// Longest time from upgrade to a valid `auth`, ms. Above it: close 4001.
pub const AUTH_MS_MAX: u64 = 10_000;
/// Longest token, bytes; checked before it is parsed.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Clock skew allowed between the issuer of a token and us, s.
pub const TOKEN_SKEW_S: u64 = 60;
/// Longest `kid` of a key, bytes.
pub const KID_BYTES_MAX: usize = 256;
/// Longest `sid` of a token, bytes.
pub const SID_BYTES_MAX: usize = 256;
/// Keys of the issuer. Above it the set is refused.
pub const KEYS_MAX: usize = 64;
/// The issuer's keys are fetched again after this, ms.
pub const KEYS_REFRESH_MS: u64 = 10 * 60_000;
/// A key that is not known makes the issuer be asked for its keys at most this often, ms.
pub const KEYS_ASK_MS: u64 = 30_000;
/// Keys that could not be fetched are asked for again after this, ms, then after twice as long, up to
/// [`KEYS_ASK_MS`].
pub const KEYS_RETRY_MS: u64 = 500;
/// A token that waits for the issuer is answered `unavailable` after this, ms.
pub const IDENTIFY_MS_MAX: u64 = 3_000;
/// Tokens that may wait for the issuer. Above it: `unavailable`.
pub const IDENTIFY_WAITING_MAX: usize = 4_096;
/// Questions about tokens that the issuer is asked at once; the others wait.
pub const INTROSPECTIONS_MAX: usize = 32;
/// What the issuer said of a token holds for this, ms.
pub const INTROSPECTED_MS: u64 = 30_000;
/// Tokens of which it is kept what the issuer said.
pub const INTROSPECTED_MAX: usize = 20_000;
/// Longest answer of another service, bytes.
pub const OUTBOUND_BYTES_MAX: usize = 256 << 10;
/// Longest time of a request to another service, ms.
pub const OUTBOUND_MS_MAX: u64 = 2_500;
/// Longest `webhook-id`, bytes.
pub const WEBHOOK_ID_BYTES_MAX: usize = 256;
/// Longest `webhook-signature`, bytes.
pub const WEBHOOK_SIGNATURES_BYTES_MAX: usize = 4 << 10;
/// Signatures of one webhook that are looked at.
pub const WEBHOOK_SIGNATURES_MAX: usize = 16;
/// A webhook that was signed longer ago, or will be later, is refused, ms.
pub const WEBHOOK_TOLERANCE_MS: u64 = 300_000;
/// Characters of an `invite_id`.
pub const INVITE_ID_CHARS_MAX: usize = 200;
/// Webhooks are kept, answered, for this long, ms.
pub const WEBHOOK_KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// Webhooks of ours are tried so often before they are given up.
pub const HOOK_ATTEMPTS_MAX: u32 = 40;
/// A webhook of ours is tried again after this time, ms, four times that, and so on...
pub const HOOK_RETRY_MS: u64 = 2_000;
/// ...up to this, ms.
pub const HOOK_RETRY_MS_MAX: u64 = 10 * 60_000;
/// Webhooks of ours under way at once, each of another room.
pub const HOOKS_UNDER_WAY_MAX: usize = 16;
/// A message is pushed after this time, ms, unless it is read before.
pub const PUSH_GRACE_MS: u64 = 3_000;
/// In a room of more members only those are pushed to who are named.
pub const PUSH_MEMBERS_MAX: usize = 200;
/// Characters of a message that a push shows.
pub const PUSH_PREVIEW_CHARS: usize = 140;
/// Users whom one question to other nodes is about.
pub const CONNECTED_USERS_MAX: usize = 500;
/// What other nodes said of who is connected is remembered this long, ms.
pub const CONNECTED_MS: u64 = 3_000;
/// A revoked session is kept for this long, where it is not said when its tokens end, ms.
pub const SESSION_REVOKED_MS: u64 = 30 * 24 * 3_600_000;
/// Fragments of one WebSocket message. Above it: close 4008. A sender of empty fragments costs
/// time without sending bytes, which no byte limit would notice.
pub const FRAGMENTS_MAX: u32 = if cfg!(feature = "echo") {
    1 << 20
} else {
    1_024
};

/// Brackets within brackets of one request. Above it: `bad_request`. The JSON parser goes one call
/// deeper for each, and would otherwise be led to the end of its stack; our own requests need four.
pub const JSON_DEPTH_MAX: u32 = 64;

/// Rooms of one user.
pub const ROOMS_PER_USER_MAX: usize = 5_000;
/// Members of one room.
pub const MEMBERS_MAX: usize = 10_000;
/// Users named in one request.
pub const USERS_PER_REQUEST_MAX: usize = 200;
/// Rooms described by `ready` and named by `resume`.
pub const READY_ROOMS_MAX: usize = 500;
/// Rooms of up to so many members bring their watermarks in `ready`.
pub const READY_WATERMARK_MEMBERS_MAX: usize = 8;
/// Members shown by `room.get`.
pub const ROOM_MEMBERS_SHOWN_MAX: usize = 100;
/// Characters (Unicode scalar values) of a message's text.
pub const TEXT_CHARS_MAX: usize = 4_000;
/// Characters of a room's title and of a user's name.
pub const TITLE_CHARS_MAX: usize = 200;
/// Bytes of the URL of a user's or a room's picture.
pub const PICTURE_BYTES_MAX: usize = 2_048;
/// Users, or `all`, mentioned by one message.
pub const MENTIONS_MAX: usize = 50;
/// Files of one message; a voice note is one.
pub const ATTACHMENTS_MAX: usize = 10;
/// Characters of a file's name.
pub const FILE_NAME_CHARS_MAX: usize = 200;
/// Bytes of an image, if not set otherwise.
pub const IMAGE_BYTES_MAX: u64 = 10 << 20;
/// Bytes of a file, if not set otherwise.
pub const FILE_BYTES_MAX: u64 = 50 << 20;
/// Bytes of a voice note, if not set otherwise.
pub const VOICE_BYTES_MAX: u64 = 10 << 20;
/// What the size of an upload can be set to at most, bytes: what an object store takes in one request.
pub const UPLOAD_BYTES_MAX: u64 = 5 << 30;
/// Uploads of one user in [`UPLOAD_QUOTA_MS`], if not set otherwise.
pub const UPLOADS_PER_DAY: u32 = 500;
/// Bytes of the uploads of one user in [`UPLOAD_QUOTA_MS`], if not set otherwise.
pub const UPLOAD_BYTES_PER_DAY: u64 = 1 << 30;
/// Over how long the uploads of a user are counted, ms.
pub const UPLOAD_QUOTA_MS: u64 = 24 * 3_600_000;
/// For how long a ticket can be uploaded with, ms.
pub const UPLOAD_TICKET_MS: u64 = 15 * 60_000;
/// An upload that no message uses is removed after this, ms.
pub const UPLOAD_UNUSED_MS: u64 = 24 * 3_600_000;
/// For how long an address to fetch a file from is good, ms.
pub const FILE_URL_MS: u64 = 10 * 60_000;
/// Files of one `attachment.urls`.
pub const FILE_URLS_MAX: usize = 100;
/// Pixels of an image's side.
pub const IMAGE_SIDE_MAX: u32 = 65_535;
/// The longest that sounds or pictures last, ms.
pub const DURATION_MS_MAX: u64 = 24 * 3_600_000;
/// Bytes of what is shown of an image until it is there.
pub const PLACEHOLDER_BYTES_MAX: usize = 200;
/// First bytes of a file that are looked at, to see what it is.
pub const SNIFFED_BYTES: usize = 4 << 10;
/// A question about files that got no answer in this time is answered `unavailable`, ms.
pub const FILES_MS_MAX: u64 = 4_500;
/// Questions about files that a shard may have under way. Above it: `overloaded`.
pub const FILES_ASKED_MAX: usize = 256;
/// Sends of one connection to one room that may wait until a file of an earlier one was looked at. Above it:
/// `overloaded`.
pub const FILES_BEHIND_MAX: usize = 64;
/// The same of all connections of a shard.
pub const FILES_BEHIND_SHARD_MAX: usize = 2_048;

/// Different emojis on one message.
pub const REACTION_EMOJIS_MAX: usize = 20;
/// Different emojis of one user on one message.
pub const REACTIONS_PER_USER_MAX: usize = 10;
/// Pinned messages of one room.
pub const PINS_MAX: usize = 50;
/// Characters of a search.
pub const SEARCH_CHARS_MAX: usize = 200;
/// Words, or words in quotes, of a search.
pub const SEARCH_TERMS_MAX: usize = 16;
/// Messages of one page of a search.
pub const SEARCH_PAGE_MAX: usize = 50;
/// Users whom one user may block.
pub const BLOCKS_MAX: usize = 10_000;
/// Users of one `user.blocks` page.
pub const BLOCKS_PAGE_MAX: usize = 100;
/// Messages of one history page.
pub const HISTORY_PAGE_MAX: usize = 100;
/// Bytes of text in one history page; a page that reaches it ends there, with `has_more`.
pub const HISTORY_PAGE_BYTES_MAX: usize = 128 << 10;
/// Rooms of one `rooms.list` page.
pub const ROOMS_PAGE_MAX: usize = 100;
/// Members of one `room.members.list` page.
pub const MEMBERS_PAGE_MAX: usize = 100;
/// `unread` is counted up to this.
pub const UNREAD_MAX: u32 = 100;

/// Users, rooms, connections, reports or acts of one page of the Admin API.
pub const ADMIN_PAGE_MAX: usize = 200;
/// The same, if not asked otherwise.
pub const ADMIN_PAGE: usize = 50;
/// Users, or rooms, that one page of the Admin API looks at to find those that are asked for.
pub const ADMIN_SCANNED_MAX: usize = 20_000;
/// Of each kind of thing shown with one user or room by the Admin API.
pub const ADMIN_SHOWN_MAX: usize = 100;
/// Newest reports among which those by and of one user are looked for.
pub const ADMIN_REPORTS_SCANNED_MAX: usize = 5_000;
/// Messages of a room are counted up to this by the Admin API.
pub const ADMIN_COUNTED_MAX: usize = 10_000;
/// Characters of a reason or note given to the Admin API.
pub const ADMIN_NOTE_CHARS_MAX: usize = 1_000;
/// Days for which a room may be told to keep its messages: a hundred years.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
/// Shortest service token, characters.
pub const ADMIN_TOKEN_CHARS_MIN: usize = 32;
/// Wrong service tokens of one address within a minute, if not set otherwise. Above it: `rate_limited`, whatever
/// the token.
pub const ADMIN_FAILURES_PER_MIN: u32 = 10;
/// Questions of the Admin API that may wait for one shard.
pub const SERVICE_ASKS_MAX: usize = 64;
/// Characters kept of what a client calls itself.
pub const CLIENT_CHARS_MAX: usize = 64;

/// Messages one user may send within 10 s, over all connections and HTTP together.
pub const SENDS_PER_10S: u32 = 50;
/// Commands one user may give within 10 s, sends included, over all connections and HTTP together.
pub const COMMANDS_PER_10S: u32 = 200;
/// Refusals for rate after which a connection that goes on regardless is closed 4101.
pub const RATE_REFUSALS_MAX: u16 = 1_000;
/// How often a client says `typing.start` while it lasts, ms. More often is a command like any other, and nobody is
/// told again for it.
pub const TYPING_INTERVAL_MS: u64 = 3_000;
/// Who has not said again that they are typing is forgotten, ms: two intervals.
pub const TYPING_EXPIRES_MS: u64 = 2 * TYPING_INTERVAL_MS;
/// Who is typing in a room is told at most this often, ms.
pub const TYPING_TELL_MS: u64 = 1_000;
/// Users who are told to be typing in one room; further ones are passed over.
pub const TYPING_USERS_MAX: usize = 100;
/// Connections of a shard that listen to a room; with more of them typing is neither
/// taken nor told, but its end is.
pub const TYPING_CONNECTIONS_MAX: usize = 100;
/// A ping is sent when nothing was received, or nothing sent, for this long, ms.
pub const PING_INTERVAL_MS: u64 = 25_000;
/// A connection that was not heard for the interval and this is closed 4201, ms.
pub const PING_TIMEOUT_MS: u64 = 10_000;

/// Sockets of one address on a node, if not set otherwise: many people may share an address.
pub const CONNECTIONS_PER_IP: u32 = 2_000;
/// This part of them may be such that have not signed in, but never fewer than
/// [`UNAUTHENTICATED_PER_IP_MIN`].
pub const UNAUTHENTICATED_PER_IP_PART: u32 = 4;
/// Sockets of one address that have not signed in, at the least.
pub const UNAUTHENTICATED_PER_IP_MIN: u32 = 16;
/// WebSockets of a shard that have not signed in. Above it: 503. Each has [`AUTH_MS_MAX`].
pub const UNAUTHENTICATED_MAX: u64 = 16_384;
/// Connections of one user on a node, if not set otherwise. Above it: the oldest is closed 4103.
pub const CONNECTIONS_PER_USER: usize = 20;
/// `retry_after_ms` told with 4103, at least; up to twice as much. Long, so that clients beyond the
/// limit do not take turns in closing each other.
pub const CONNECTION_LIMIT_RETRY_MS: u64 = 30_000;

/// Events replayed for one room, and kept in its window.
pub const REPLAY_EVENTS_MAX: usize = 300;
/// Bytes replayed for one room, and kept in its window.
pub const REPLAY_BYTES_MAX: usize = 256 << 10;
/// Events replayed for one connection.
pub const REPLAY_CONNECTION_EVENTS_MAX: usize = 2_000;
/// Bytes replayed for one connection.
pub const REPLAY_CONNECTION_BYTES_MAX: usize = 1 << 20;
/// Bytes of one pull of a replay; the next one is asked for when the outbox is below it.
pub const REPLAY_PULL_BYTES: usize = 64 << 10;
/// Frames held for one connection between its `auth` and its `ready`.
pub const EARLY_FRAMES_MAX: usize = 32;
/// A sign-in or a subscription that got no answer in this time is given up, ms.
pub const SIGN_IN_MS_MAX: u64 = 4_000;
/// Rooms of one connection whose subscription is under way at once.
pub const SUBSCRIBES_IN_FLIGHT_MAX: usize = 256;

/// Bytes one outbox may hold. Above it: ephemeral events are dropped, then close 4200.
pub const OUTBOX_BYTES_MAX: usize = if cfg!(feature = "echo") {
    128 << 20
} else {
    1 << 20
};
/// Bytes all outboxes of a node may hold; a shard has its share.
pub const OUTBOX_NODE_BYTES_MAX: usize = if cfg!(feature = "echo") {
    1 << 30
} else {
    128 << 20
};
/// A read waits while the outbox holds more than this, bytes. One read of a connection is under
/// way at a time; the others wait for it.
pub const OUTBOX_READ_BYTES_MAX: usize = 128 << 10;
/// Reads (`history.get`, `rooms.list`, `room.get`) of one connection that may wait. Above it:
/// `rate_limited`.
pub const READS_WAITING_MAX: usize = 64;
/// Bytes the windows of a node's rooms may hold; a shard has its share.
pub const WINDOWS_NODE_BYTES_MAX: usize = 128 << 20;
/// A room without subscribers is kept, for those who come back, for this long, ms.
pub const ROOM_IDLE_MS: u64 = 60_000;

/// Writes of one batch.
pub const BATCH_OPS_MAX: usize = 1_024;
/// From so many writes a second on, a shard's batches are spaced.
pub const SPACED_WRITES_PER_S: u64 = 250;
/// Spaced batches begin at multiples of this, the same for all shards, µs, unless set otherwise or the
/// store is slower than that anyway: those that begin together share a commit where the store can. On
/// average a write waits half of it.
pub const BATCH_SPACING_US: u64 = 4_000;
/// The longest spacing that can be set, µs.
pub const BATCH_SPACING_US_MAX: u64 = 100_000;
/// Writes a home shard may hold that are not in a batch yet. Above it: `overloaded`.
pub const COMMIT_QUEUE_MAX: usize = 8_192;
/// A write that got no answer from the store in this time is answered `unavailable`, ms.
pub const COMMIT_MS_MAX: u64 = 4_000;
/// How long writes to a room that others held go in batches that wait, apart from the others, ms.
pub const ROOM_HELD_MS: u64 = 1_000;
/// Users of one sign-in call to the store.
pub const SIGN_IN_USERS_MAX: usize = 256;
/// Requests over HTTP that one shard may have under way. Above it: `overloaded`.
pub const ASKS_MAX: usize = 256;
/// A request over HTTP that got no answer in this time is answered `unavailable`, ms.
pub const ASK_MS_MAX: u64 = 5_000;
/// Users whose account a shard knows to be there, so that their requests over HTTP need no sign-in.
pub const ASKERS_KNOWN_MAX: usize = 8_192;
/// For so long, ms; then it is looked again whether their session has ended or the account is gone, which is told at
/// once but may be lost.
pub const ASKERS_KNOWN_MS: u64 = 5_000;
/// Reactions that a `user.erased` tells of; `UserErased::reactions`.
pub const REACTIONS_LEFT_MAX: usize = 200;
/// Calls of one shard that the store may have under way. Above it: `overloaded`.
pub const STORE_CALLS_MAX: usize = 2_048;
/// `retry_after_ms` told with `overloaded` and `unavailable`.
pub const RETRY_AFTER_MS: u64 = 1_000;
/// Events that may wait in the gate of one room for an earlier one; further ones are fetched.
pub const GATE_EVENTS_MAX: usize = 256;
/// `last_seq` of rooms with subscribers is compared with the store this often, ms: what nobody could
/// tell, because its node was killed or cut off, is then seen within 5 s, the fetch included.
pub const HEADS_POLL_MS: u64 = 4_000;
/// The same while there are other nodes and no relay tells what they do, ms.
pub const HEADS_POLL_ALONE_MS: u64 = 1_000;
/// A room opens without the relay's word that it is followed after this, ms.
pub const FOLLOW_MS_MAX: u64 = 1_000;
/// After a bucket is followed anew its rooms are compared with the store, this much later, so that
/// many buckets share the comparison, ms.
pub const FOLLOWED_COMPARE_MS: u64 = 200;
/// An event that is missing is fetched from the store after this, if the relay does not bring it, µs.
pub const GAP_WAIT_US: u64 = 20_000;
/// Larger events are not relayed, only that they are there, bytes.
pub const RELAY_EVENT_BYTES_MAX: usize = 64 << 10;
/// News of the relay that wait for a shard.
pub const RELAY_NEWS_MAX: usize = 16_384;
/// The bucket, beside those of rooms, by which nodes tell of users who became members.
pub const USERS_BUCKET: u16 = BUCKETS;
/// The first of the buckets, beside those of rooms, by which nodes tell each other of the presence of users.
pub const PRESENCE_BUCKET: u16 = USERS_BUCKET + 1;
/// How many there are: a node follows those of the users that are watched on it.
pub const PRESENCE_BUCKETS: u16 = 64;
/// All buckets of the relay.
pub const RELAY_BUCKETS: u16 = PRESENCE_BUCKET + PRESENCE_BUCKETS;

/// Changes of presence are told together, this often at most, and a user who came or chose is told of
/// after this, ms.
pub const PRESENCE_COALESCE_MS: u64 = 1_000;
/// A user of whom a connection ended is told of as less present after this, if they do not come back, ms.
pub const PRESENCE_GRACE_MS: u64 = 8_000;
/// A subscription to presence ends after this, ms.
pub const PRESENCE_WATCH_MS: u64 = 15 * 60_000;
/// Users whose presence one connection may watch. Above it: `too_large`.
pub const PRESENCE_WATCHED_MAX: usize = 1_000;
/// Changes wait, the newest of each user, while a connection's outbox holds more than this, bytes.
pub const PRESENCE_OUTBOX_BYTES_MAX: usize = 16 << 10;
/// A node asks the others again for the users that are watched on it after this, ms.
pub const PRESENCE_ASK_MS: u64 = 25_000;
/// What another node said of a user holds for this, s, unless it is said again: for two asks.
pub const PRESENCE_TTL_S: u16 = 60;
/// A node tells of changes in a bucket for this long after it was asked for users of it, ms: three asks.
pub const PRESENCE_WANTED_MS: u64 = 80_000;
/// Users of one message between nodes about presence.
pub const PRESENCE_USERS_PER_MESSAGE: usize = 500;
/// Nodes whose word on one user is kept.
pub const PRESENCE_NODES_MAX: usize = 64;
/// Users who are gone of whom a shard remembers when they were last seen.
pub const PRESENCE_GONE_MAX: usize = 50_000;

/// Rooms of one `receipt.delivered` or `receipt.read`: those that `ready` describes.
pub const RECEIPT_ROOMS_MAX: usize = READY_ROOMS_MAX;
/// Who is typing is noted in the store this often, ms: a sample for operators, on no path of an event.
pub const TYPING_SAMPLE_MS: u64 = 10_000;
/// Indicators of one sample of one shard.
pub const TYPING_SAMPLE_MAX: usize = 1_000;
/// Receipts are written this often, ms; and told of one room at most this often.
pub const RECEIPTS_MS: u64 = 1_000;
/// Receipts of one batch. When so many wait, they are written at once.
pub const RECEIPTS_BATCH_MAX: usize = 1_000;
/// Receipts of different users and rooms that may wait for being written at one shard; further ones
/// replace the oldest.
pub const RECEIPTS_WAITING_MAX: usize = 16_384;
/// Receipts of different users and rooms that may wait for being told at one shard; further ones are
/// written but not told.
pub const RECEIPTS_UNTOLD_MAX: usize = 16_384;
/// Members of a room above which receipts are written but not told to others.
pub const RECEIPT_MEMBERS_MAX: usize = 100;
/// Receipts of one message between nodes.
pub const RECEIPTS_PER_MESSAGE: usize = 500;
/// Who begins to listen to a room may have read its watermarks before those of the last while were told: so
/// these are told again, ms.
pub const RECEIPTS_AGAIN_MS: u64 = 3 * SIGN_IN_MS_MAX;
/// Receipts are not put into outboxes that hold more than this, bytes.
pub const RECEIPT_OUTBOX_BYTES_MAX: usize = 64 << 10;
/// Receipts told between a connection's `auth` and its `ready` that are kept for it.
pub const RECEIPTS_EARLY_MAX: usize = 1_000;
/// Own states of rooms that wait for being read, to be told to a user's other devices, at one shard; further
/// ones are not told.
pub const OWN_STATES_WAITING_MAX: usize = 10_000;

/// Rooms, or users, compared by one call.
pub const HEADS_MAX: usize = 500;
/// Stretches of events that one shard may be fetching at once.
pub const FETCHES_MAX: usize = 128;

/// Uploads that one node takes into its own folder at once. Above it: `overloaded`.
pub const FOLDER_UPLOADS_MAX: usize = 32;
/// Downloads that one node gives out of its own folder at once. Above it: `overloaded`.
pub const FOLDER_DOWNLOADS_MAX: usize = 96;
/// What an upload may have beside the file itself, bytes.
pub const FOLDER_FORM_BYTES_MAX: usize = 64 << 10;
/// Longest time until the file itself begins, ms.
pub const FOLDER_FORM_MS_MAX: u64 = 10_000;
/// Longest time in which nothing of a file comes or goes, ms.
pub const FOLDER_STALL_MS_MAX: u64 = 15_000;
/// Longest time of an upload or a download, ms.
pub const FOLDER_TRANSFER_MS_MAX: u64 = 30 * 60_000;
/// Slowest upload, bytes in a second over all its time.
pub const FOLDER_UPLOAD_RATE_MIN: u64 = 4 << 10;

/// Messages from one shard to another that may be under way in the ring between them.
pub const MESH_RING_MESSAGES: usize = 8_192;
/// Messages that may wait in front of that ring before events are held back at the home shard.
pub const MESH_DELIVER_MAX: usize = 4_096;
/// Messages that may wait in front of that ring before commands are answered `overloaded`.
pub const MESH_COMMAND_MAX: usize = 16_384;

/// Shards of one node.
pub const SHARDS_MAX: usize = 64;
/// Buckets that rooms and users are hashed into; the home shard is bucket mod shards.
pub const BUCKETS: u16 = 16_384;

// A whole resumed connection must fit into its outbox with room for what is live.
const _: () = assert!(REPLAY_BYTES_MAX + REPLAY_PULL_BYTES < OUTBOX_BYTES_MAX);
// A page of history must fit beside what a reader may already have waiting, though JSON may write
// every byte of it as an escape of six.
const _: () = assert!(OUTBOX_READ_BYTES_MAX + HISTORY_PAGE_BYTES_MAX * 6 < OUTBOX_BYTES_MAX);
// A half-open socket is closed within 35 s.
const _: () = assert!(PING_INTERVAL_MS + PING_TIMEOUT_MS <= 35_000);
// Sends are answered within 5 s, whatever the store does; timers are checked every 256 ms.
const _: () = assert!(COMMIT_MS_MAX + 512 < 5_000);
// What a write is answered late comes before the request over HTTP is given up.
const _: () = assert!(COMMIT_MS_MAX + 512 < ASK_MS_MAX);
// A frame of the largest text, every character a 12-byte escape, must be acceptable.
const _: () = assert!(TEXT_CHARS_MAX * 12 + 1_024 < FRAME_BYTES_MAX);
const _: () = assert!(MESH_DELIVER_MAX < MESH_COMMAND_MAX);
// Every shard is the home of some bucket of presence, and one lost answer of another node is not noticed.
const _: () = assert!(SHARDS_MAX <= PRESENCE_BUCKETS as usize);
const _: () = assert!(2 * PRESENCE_ASK_MS < PRESENCE_TTL_S as u64 * 1_000);
const _: () = assert!(3 * PRESENCE_ASK_MS < PRESENCE_WANTED_MS);
// Who waits for the issuer hears what it says, and what it does not say.
const _: () = assert!(OUTBOUND_MS_MAX < IDENTIFY_MS_MAX);
// A sign-in that waited for keys and for an introspection still has the time of one call.
const _: () = assert!(2 * IDENTIFY_MS_MAX < 2 * SIGN_IN_MS_MAX);
