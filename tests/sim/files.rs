//! Files: the way from a shard's question to its answer, as the control plane goes it, and people who bring
//! what they declared, something else, or nothing, and send it once, twice, or from two nodes at once.

use crate::client::Pending;
use crate::node::At;
use crate::world::World;
use caffis_chat::chat::Input;
use caffis_chat::chat::port::files::{
    FilesAsk, FilesAskId, FilesRefusal, FilesTold, NamedUploads, UploadAnswer, UploadCall,
    UploadQuota, UploadState,
};
use caffis_chat::chat::port::{StoreAnswer, StoreCall, StoreError};
use caffis_chat::protocol::object::ObjectKey;
use caffis_chat::protocol::upload::{AttachmentUrl, AttachmentUrlsTold, UploadTicket};
use caffis_chat::protocol::{ErrorCode, RoomId, UnixMs, UploadId, UserId};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Tickets of one user that are tried again.
const TICKETS_MAX: usize = 12;

/// A file that somebody may bring.
#[derive(Clone, Debug)]
pub struct SimFile {
    owner: UserId,
    room: RoomId,
    upload: Uuid,
    /// What a look at it finds; `None`: nothing was brought.
    brought: Option<UploadState>,
}

/// A question of a shard under way.
pub struct Question {
    id: FilesAskId,
    ask: FilesAsk,
    due_us: u64,
    /// What was seen and is to be kept.
    seen: Option<Vec<(UploadId, UploadState)>>,
}

impl World {
    /// A shard asks about files.
    pub fn ask_files(&mut self, at: At, id: FilesAskId, ask: FilesAsk) {
        let slow = !self.calm && self.rng.permille(self.scenario.store_slow_permille);
        let wait_us = if slow { self.rng.below(8_000_000) } else { 0 } as u64;
        if let Some(node) = &mut self.hosts[at.host].node {
            node.files[at.shard].push(Question {
                id,
                ask,
                due_us: self.now_us + wait_us,
                seen: None,
            });
        }
    }

    /// Those who know where files are kept go a step further with one question of each shard.
    pub fn run_files(&mut self, host: usize) -> Result<(), String> {
        for shard in 0..self.hosts[host].shards {
            let (now_us, calm) = (self.now_us, self.calm);
            let Some(node) = &mut self.hosts[host].node else {
                return Ok(());
            };
            let questions = &mut node.files[shard];
            let due: Vec<usize> = (0..questions.len())
                .filter(|place| calm || questions[*place].due_us <= now_us)
                .collect();
            if due.is_empty() {
                continue;
            }
            let question = questions.swap_remove(due[self.rng.below(due.len())]);
            self.go_on(At { host, shard }, question)?;
        }
        Ok(())
    }

    fn go_on(&mut self, at: At, mut question: Question) -> Result<(), String> {
        let fault = !self.calm && self.rng.permille(self.scenario.store_fault_permille);
        let told = match &question.ask {
            _ if fault && self.rng.permille(500) => Err(away()),
            FilesAsk::Create(file) => {
                let (id, key) = (UploadId(self.rng.uuid()), self.rng.uuid());
                let call = UploadCall::Create {
                    id,
                    key: ObjectKey::new(*key.as_bytes()),
                    file: file.clone(),
                    quota: UploadQuota {
                        uploads: 10_000,
                        bytes: 1 << 30,
                    },
                };
                match self.uploads(call) {
                    Some(UploadAnswer::Created(Ok(expires_at))) => {
                        Ok(FilesTold::Ticket(UploadTicket {
                            upload_id: id,
                            method: "POST",
                            url: "/v1/files".to_owned(),
                            fields: BTreeMap::new(),
                            expires_at,
                        }))
                    }
                    Some(UploadAnswer::Created(Err(refusal))) => Err(refusal),
                    _ => Err(away()),
                }
            }
            FilesAsk::Urls(named) => match self.uploads(UploadCall::Shown(named.clone())) {
                Some(UploadAnswer::Shown(Ok(shown))) => {
                    let missing = |id: &&UploadId| !shown.iter().any(|upload| upload.id == **id);
                    let missing = named.uploads.iter().filter(missing).copied().collect();
                    let urls = shown.iter().map(|upload| AttachmentUrl {
                        upload_id: upload.id,
                        url: "/v1/files/x".to_owned(),
                        expires_at: UnixMs(self.unix().0 + 1_000),
                    });
                    let urls = urls.collect();
                    Ok(FilesTold::Urls(AttachmentUrlsTold { urls, missing }))
                }
                Some(UploadAnswer::Shown(Err(refusal))) => Err(refusal.into()),
                _ => Err(away()),
            },
            FilesAsk::Check(named) => match question.seen.take() {
                Some(seen) if seen.is_empty() => Ok(FilesTold::Checked),
                Some(seen) => match self.uploads(UploadCall::Seen(seen)) {
                    Some(_) => Ok(FilesTold::Checked),
                    None => Err(away()),
                },
                None => {
                    // What was seen is kept a moment later: somebody else may look meanwhile.
                    question.seen = Some(self.look(&named.clone()));
                    if let Some(node) = &mut self.hosts[at.host].node {
                        node.files[at.shard].push(question);
                    }
                    return Ok(());
                }
            },
        };
        // What was done stands, but its answer is lost.
        let told = if fault { Err(away()) } else { told };
        self.input(at, Input::Files(question.id, told))
    }

    fn uploads(&mut self, call: UploadCall) -> Option<UploadAnswer> {
        match self.write(StoreCall::Uploads(Box::new(call))) {
            Ok(StoreAnswer::Uploads(answer)) => Some(*answer),
            Err(StoreError::Unavailable(_) | StoreError::Overloaded) | Ok(_) => None,
        }
    }

    fn look(&mut self, named: &NamedUploads) -> Vec<(UploadId, UploadState)> {
        let Some(UploadAnswer::Own(own)) = self.uploads(UploadCall::Own(named.clone())) else {
            return Vec::new();
        };
        let new = own.iter().filter(|it| it.state == UploadState::Created);
        let brought = |id: UploadId| {
            let file = self.files.iter().find(|file| file.upload == id.0);
            file.and_then(|file| file.brought)
        };
        new.filter_map(|it| Some((it.id, brought(it.id)?)))
            .collect()
    }

    /// A client brings a file, or sends one that its user has brought, maybe not for the first time.
    pub fn use_file(&mut self, place: usize, room: RoomId) {
        for (room, upload) in std::mem::take(&mut self.clients[place].tickets) {
            let brought = match self.rng.below(10) {
                0 => Some(UploadState::Wrong),
                1 => Some(UploadState::TooLarge),
                2 => None,
                _ => Some(UploadState::Checked),
            };
            self.files.push(SimFile {
                owner: self.clients[place].user,
                room,
                upload,
                brought,
            });
        }
        let client = &self.clients[place];
        let own: Vec<SimFile> = (self.files.iter().rev())
            .filter(|file| file.owner == client.user && client.rooms.contains_key(&file.room))
            .take(TICKETS_MAX)
            .cloned()
            .collect();
        if own.is_empty() || self.rng.permille(100) {
            return self.clients[place].upload(room);
        }
        if self.rng.permille(100) {
            let shown = self.clients[place].rooms[&room].messages.values();
            let shown: Vec<String> = shown.flat_map(|it| it.files.clone()).take(10).collect();
            if !shown.is_empty() {
                self.clients[place].urls(room, shown);
            }
            return;
        }
        let file = &own[self.rng.below(own.len())];
        // More than may be without one: those who write all the time bring something, too.
        if self.clients[place].pending.len() < 12 {
            self.clients[place].begin(Pending {
                room: file.room,
                id: self.rng.uuid(),
                text: "with a file".to_owned(),
                upload: Some(file.upload),
            });
        }
    }

    /// Each file is in one message at most, in that of whom it was acknowledged; nothing is in a message that is
    /// not what was declared; and who was told that a file was gone has not sent it.
    pub fn compare_files(&mut self) -> Result<(), String> {
        if self.lost_epoch == Some(self.store.epoch()) {
            return Ok(());
        }
        let mut placed: BTreeMap<Uuid, (RoomId, u64)> = BTreeMap::new();
        let mut shown: BTreeMap<(RoomId, u64), bool> = BTreeMap::new();
        for room in self.last_seqs().into_keys() {
            for event in self.events(room, 0, u64::MAX)? {
                let Some(message) = event.body.message() else {
                    continue;
                };
                let is_shown = message.deleted_at.is_none();
                shown.insert((room, message.seq), is_shown);
                let id = message.client_msg_id.map(|id| id.0);
                if id.is_some_and(|id| self.truth.refused.contains(&id)) {
                    return Err(format!("refused, and there: {}", event.to_json()));
                }
                for file in &message.attachments {
                    let here = (room, message.seq);
                    let other = placed.insert(file.upload_id.0, here);
                    if other.is_some_and(|other| other != here) {
                        return Err(format!("{} is in {other:?} and {here:?}", file.upload_id));
                    }
                }
            }
        }
        for file in self.files.clone() {
            let named = NamedUploads {
                room: file.room,
                user: file.owner,
                uploads: vec![UploadId(file.upload)],
            };
            let Some(UploadAnswer::Own(own)) = self.uploads(UploadCall::Own(named)) else {
                return Err("no uploads".to_owned());
            };
            let stands = placed.get(&file.upload).copied();
            let state = own.first().map(|it| (it.state, it.message_seq));
            let is_right = match (state, stands) {
                (Some((UploadState::Used, Some(seq))), Some((room, stood))) => {
                    (room, stood) == (file.room, seq)
                }
                // Dropped, or its message was never told again.
                (Some((UploadState::Removed, _)) | None, None) => true,
                (Some((UploadState::Used, _)), _) | (_, Some(_)) => false,
                _ => true,
            };
            if !is_right || stands.is_some() && file.brought != Some(UploadState::Checked) {
                return Err(format!("{file:?} is {state:?} and stands at {stands:?}"));
            }
            self.report.files_sent += u64::from(stands.is_some());
        }
        // What was acknowledged with a file has it, unless it was deleted, dropped or erased since.
        for client in &self.clients {
            for sent in &client.done {
                let Some(upload) = sent.upload else { continue };
                let key = self.truth.key_now((sent.room, client.user, sent.id));
                let Some(seq) = self.truth.acked.get(&key).copied() else {
                    continue;
                };
                let here = (sent.room, seq);
                let is_shown = shown.get(&here).copied().unwrap_or(false);
                let stood = placed.get(&upload);
                let is_right = match stood {
                    Some(stood) => *stood == here,
                    None => !is_shown,
                };
                if !is_right {
                    return Err(format!(
                        "{upload} was acknowledged at {here:?} and stands at {stood:?}"
                    ));
                }
            }
        }
        self.report.files_gone += self.truth.refused.len() as u64;
        Ok(())
    }
}

fn away() -> FilesRefusal {
    FilesRefusal::new(ErrorCode::Unavailable, "retry with the same id")
}
