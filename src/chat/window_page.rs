//! A page of a room's history out of the window: what is answered while the store is away.
//!
//! A window is contiguous and ends at the newest event, so of a message that was created in it every
//! later change is in it too: its current state, and which reactions are the reader's own, follow from
//! the window alone, and equal what the store would say. Of older messages nothing is told.
//!
//! Invariants: a page that would need anything older is not given; its messages are in the order that
//! the store would give them in. Event 1 opened the room, and who did is not in it: a page ends before.

use super::frame::Frame;
use super::port::{HistoryPage, HistoryRead};
use super::window::Window;
use crate::protocol::view::{Message, MessageKind, SystemEvent};
use crate::protocol::{RequestId, Seq, UnixMs, UserId, reply, websocket};
use serde::{Deserialize, Serialize};
use sonic_rs::{JsonValueMutTrait, JsonValueTrait, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The page as the `data` of a reply; the shape of [`reply::History`].
#[derive(Debug, Serialize)]
struct Page {
    messages: Vec<Value>,
    has_more: bool,
    last_seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_seq: Option<Seq>,
    /// Not all that the window has before it is in it.
    #[serde(skip)]
    is_cut: bool,
}

/// An event as it was encoded.
#[derive(Deserialize)]
struct Told {
    r#type: String,
    seq: Seq,
    ts: String,
    data: Value,
}

/// A message of the window.
struct Held {
    message: Value,
    changed_seq: Seq,
    /// The reader's own reactions.
    own: BTreeSet<String>,
    bytes: usize,
}

/// A window, and where it ends and the room begins.
pub(super) struct Whole<'a> {
    pub window: &'a Window,
    /// The last event.
    pub released: Seq,
    /// Events up to this one are no longer kept.
    pub floor: Seq,
}

/// Whether a window tells anything of a message that is no longer kept: its event, or what it says since an edit.
pub(super) fn tells_of_dropped(window: &Window, floor: Seq) -> bool {
    let Some(first) = window.first() else {
        return false;
    };
    let edits_dropped = |frame: &Frame| {
        let json = websocket::payload(frame.bytes());
        sonic_rs::from_slice::<Told>(json).is_ok_and(|told| {
            let message_seq = told.data.get("message_seq").and_then(|seq| seq.as_u64());
            told.r#type == "message.updated" && message_seq.is_some_and(|seq| seq <= floor)
        })
    };
    first <= floor
        || window
            .after(first - 1)
            .any(|(_, frame)| edits_dropped(frame))
}

/// The ack with this page, as JSON; `None` if the window does not hold what it takes.
pub(super) fn page(whole: &Whole<'_>, request: RequestId, read: &HistoryRead) -> Option<String> {
    let Whole {
        window,
        released,
        floor,
    } = *whole;
    if window.first().is_some_and(|first| first <= floor) {
        return None;
    }
    let first = window.first().filter(|_| window.holds(released))?.max(2);
    let (held, outside) = fold(window, first, read.user)?;
    let mut page = match read.page {
        HistoryPage::Newest => older(held, released, Seq::MAX, read),
        HistoryPage::Before(seq) => older(held, released, seq, read),
        HistoryPage::After(seq) if seq + 1 < first || seq < outside => None,
        HistoryPage::After(seq) => Some(newer(held, released, seq, read)),
        // Which side of it is cut depends on both.
        HistoryPage::Around(_) => None,
    }?;
    if floor > 0 {
        // Whether anything is left between the floor and the window is not known.
        let is_cut = page.next_after_seq.is_some() || page.is_cut;
        page.floor_seq = Some(floor);
        is_cut.then_some(())?;
    }
    Some(reply::ack(request, &page))
}

/// The messages before `before`, the newest of them. There is always something before a window's first:
/// at least how the room was opened.
fn older(
    held: BTreeMap<Seq, Held>,
    last_seq: Seq,
    before: Seq,
    read: &HistoryRead,
) -> Option<Page> {
    let mut candidates = held.into_iter().rev().filter(|(seq, _)| *seq < before);
    let (mut messages, is_cut) = take(&mut candidates, read);
    messages.reverse();
    // An empty page would say that there is nothing, which is not known.
    (!messages.is_empty()).then(|| Page {
        messages: messages.into_iter().map(|held| held.message).collect(),
        has_more: true,
        last_seq,
        next_after_seq: None,
        floor_seq: None,
        is_cut,
    })
}

/// The messages that were created or changed after `after`, the first of them.
fn newer(held: BTreeMap<Seq, Held>, last_seq: Seq, after: Seq, read: &HistoryRead) -> Page {
    let mut changed: Vec<Held> = held.into_values().collect();
    changed.retain(|held| held.changed_seq > after);
    changed.sort_by_key(|held| held.changed_seq);
    let (messages, has_more) = take(&mut changed.into_iter().map(|held| (0, held)), read);
    let next_after_seq = match messages.last() {
        Some(last) if has_more => last.changed_seq,
        Some(_) | None => last_seq,
    };
    Page {
        messages: messages.into_iter().map(|held| held.message).collect(),
        has_more,
        last_seq,
        next_after_seq: Some(next_after_seq),
        floor_seq: None,
        is_cut: has_more,
    }
}

/// As many as a page takes, and whether that was not all.
fn take(held: &mut dyn Iterator<Item = (Seq, Held)>, read: &HistoryRead) -> (Vec<Held>, bool) {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for (_, held) in held {
        bytes += held.bytes;
        if taken.len() == read.limit || bytes > read.bytes_max && !taken.is_empty() {
            return (taken, true);
        }
        taken.push(held);
    }
    (taken, false)
}

/// The messages that were created in the window, in their current state, for this reader, and the last
/// change of an older one in it, or 0. `None` for an event that is not known here.
fn fold(window: &Window, first: Seq, reader: UserId) -> Option<(BTreeMap<Seq, Held>, Seq)> {
    let mut held: BTreeMap<Seq, Held> = BTreeMap::new();
    let mut outside = 0;
    for (_, frame) in window.after(first - 1) {
        let json = websocket::payload(frame.bytes());
        let told: Told = sonic_rs::from_slice(json).ok()?;
        let created = match told.data.get("message") {
            Some(message) if told.r#type == "message.created" => Some(message.clone()),
            _ => system(&told),
        };
        if let Some(message) = created {
            let changed_seq = message.get("changed_seq")?.as_u64()?;
            let held_one = Held {
                message,
                changed_seq,
                own: BTreeSet::new(),
                bytes: json.len(),
            };
            held.insert(told.seq, held_one);
            if told.r#type == "user.erased" {
                // It changed messages without saying so of each.
                outside = told.seq;
            }
            continue;
        }
        let message_seq = told.data.get("message_seq")?.as_u64()?;
        if message_seq < first {
            outside = told.seq;
            continue;
        }
        change(held.get_mut(&message_seq)?, &told, reader)?;
    }
    held.values_mut().for_each(tell_own);
    Some((held, outside))
}

/// What an event about a message makes of it. What the message shows already is newer: one that was read
/// from the store stands in the window in its state of then.
fn change(held: &mut Held, told: &Told, reader: UserId) -> Option<()> {
    if told.r#type == "reaction.updated" {
        let emoji = told.data.get("emoji")?.as_str()?;
        if told.data.get("user_id")?.as_str()? == reader.to_string() {
            match told.data.get("added")?.as_bool()? {
                true => held.own.insert(emoji.to_owned()),
                false => held.own.remove(emoji),
            };
        }
    }
    if told.seq <= held.changed_seq {
        return Some(());
    }
    held.changed_seq = told.seq;
    let message = match told.r#type.as_str() {
        "message.updated" => {
            held.message = told.data.get("message")?.clone();
            held.changed_seq = held.message.get("changed_seq")?.as_u64()?;
            return Some(());
        }
        _ => held.message.as_object_mut()?,
    };
    message.insert("changed_seq", told.seq);
    match told.r#type.as_str() {
        "message.deleted" => {
            message.insert("text", Value::default());
            message.insert("mentions", json!([]));
            message.insert("attachments", json!([]));
            message.insert("reactions", json!({}));
            message.insert("deleted_at", told.data.get("deleted_at")?.clone());
        }
        "reaction.updated" => {
            let (emoji, count) = (told.data.get("emoji")?, told.data.get("count")?);
            let reactions = message.get_mut(&"reactions")?.as_object_mut()?;
            let emoji = emoji.as_str()?;
            match count.as_u64()? {
                0 => reactions.remove(&emoji),
                _ => reactions.insert(emoji, json!({"count": count})),
            };
        }
        "message.pinned" | "message.unpinned" => (),
        // Not known here: neither is what it changes.
        _ => return None,
    }
    Some(())
}

/// The message that an event of the room or its members stands in the history as.
fn system(told: &Told) -> Option<Value> {
    let mut event = told.data.clone();
    let fields = event.as_object_mut()?;
    fields.insert("type", told.r#type.as_str());
    let actor = fields
        .get(&"actor_id")
        .or_else(|| fields.get(&"erased_as"))?;
    let actor = actor.as_str()?;
    let sender_id = UserId(uuid::Uuid::try_parse(actor).ok()?);
    let event: SystemEvent = sonic_rs::from_value(&event).ok()?;
    let message = Message {
        seq: told.seq,
        sender_id,
        client_msg_id: None,
        kind: MessageKind::System,
        text: None,
        event: Some(event),
        attachments: Vec::new(),
        reply_to_seq: None,
        mentions: Vec::new(),
        reactions: BTreeMap::new(),
        changed_seq: told.seq,
        revision: 1,
        edited_at: None,
        deleted_at: None,
        created_at: UnixMs(0),
    };
    let mut message = sonic_rs::to_value(&message).ok()?;
    message
        .as_object_mut()?
        .insert("created_at", told.ts.as_str());
    Some(message)
}

/// A reply says of each reaction whether it is the reader's.
fn tell_own(held: &mut Held) {
    let own = std::mem::take(&mut held.own);
    let reactions = held.message.as_object_mut();
    let reactions = reactions.and_then(|message| message.get_mut(&"reactions"));
    let reactions = reactions.and_then(JsonValueMutTrait::as_object_mut);
    for (emoji, reaction) in reactions.into_iter().flat_map(|all| all.iter_mut()) {
        if let Some(reaction) = reaction.as_object_mut() {
            reaction.insert("mine", own.contains(emoji));
        }
    }
}
