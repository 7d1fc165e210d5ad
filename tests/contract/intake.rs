//! What other services tell: webhooks are kept once and answered as they were, and what is said of an account counts
//! by its version, whatever the order.

use crate::harness::*;
use caffis_chat::chat::port::intake::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::ending::{Began, sid_hash};
use caffis_chat::protocol::webhook::{AccountChange, AccountEvent, WebhookSource};
use caffis_chat::protocol::{CloseCode, UnixMs};

fn intake(backend: &Backend, call: IntakeCall) -> IntakeAnswer {
    let StoreAnswer::Intake(answer) = backend.call(StoreCall::Intake(Box::new(call))) else {
        panic!("not the answer to an intake");
    };
    *answer
}

pub fn webhook(source: WebhookSource, id: &str, body: &str) -> Webhook {
    Webhook {
        source,
        id: id.to_owned(),
        signed_at: UnixMs(START_MS - 1_000),
        body: body.as_bytes().to_vec(),
    }
}

pub fn take(backend: &Backend, webhook: &Webhook) -> WebhookTaken {
    match intake(backend, IntakeCall::Take(webhook.clone())) {
        IntakeAnswer::Taken(taken) => taken,
        other => panic!("{other:?}"),
    }
}

fn answered(backend: &Backend, webhook: &Webhook, body: &str, is_replay: bool) {
    let call = IntakeCall::Answered {
        source: webhook.source,
        id: webhook.id.clone(),
        answer: WebhookAnswer {
            status: 200,
            body: body.to_owned(),
        },
        is_replay,
    };
    assert!(matches!(intake(backend, call), IntakeAnswer::Answered));
}

fn all_kept(backend: &Backend, is_open: bool) -> Vec<WebhookKept> {
    let call = IntakeCall::Webhooks {
        is_open,
        before: None,
        limit: 10,
    };
    match intake(backend, call) {
        IntakeAnswer::Webhooks(kept) => kept,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_webhook_is_kept_once_and_answered_as_it_was() {
    for backend in Backend::all() {
        let first = webhook(WebhookSource::Map, "m1", "{\"a\":\"é\u{1}\"}");
        let new = WebhookTaken {
            is_same: true,
            answer: None,
        };
        assert_eq!(take(&backend, &first), new);
        assert_eq!(take(&backend, &first), new, "nothing was done for it yet");
        let other = webhook(WebhookSource::Map, "m1", "{}");
        assert!(!take(&backend, &other).is_same);
        // An id is one sender's.
        let theirs = webhook(WebhookSource::MainApp, "m1", "{}");
        assert_eq!(take(&backend, &theirs), new);
        assert_eq!(all_kept(&backend, true).len(), 2);

        answered(&backend, &first, "one", false);
        answered(&backend, &first, "two", false);
        let answer = take(&backend, &first).answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "one"),
            "the first stays"
        );
        answered(&backend, &first, "three", true);
        let open = all_kept(&backend, true);
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].webhook, theirs);
        let call = IntakeCall::Webhook(WebhookSource::Map, "m1".to_owned());
        let IntakeAnswer::Webhook(Some(kept)) = intake(&backend, call) else {
            panic!("it is kept");
        };
        assert_eq!(kept.webhook, first);
        assert_eq!(kept.received_at, UnixMs(START_MS));
        assert_eq!(kept.answer.expect("an answer").body, "three");
        assert_eq!(kept.replays, 1);
        let call = IntakeCall::Webhook(WebhookSource::Map, "m2".to_owned());
        assert!(matches!(
            intake(&backend, call),
            IntakeAnswer::Webhook(None)
        ));

        // What was answered is forgotten after a while, what was not is not.
        backend.set_clock_ms(START_MS + limits::WEBHOOK_KEPT_MS + 1);
        take(&backend, &webhook(WebhookSource::Map, "m3", "{}"));
        let kept: Vec<String> = all_kept(&backend, false)
            .into_iter()
            .map(|kept| format!("{} {}", kept.webhook.source.name(), kept.webhook.id))
            .collect();
        assert_eq!(kept, ["map m3", "main-app m1"]);
    }
}

fn sync(backend: &Backend, n: u128, version: u64, change: AccountChange) -> bool {
    sync_at(backend, n, version, change, START_MS)
}

fn sync_at(backend: &Backend, n: u128, version: u64, change: AccountChange, at_ms: u64) -> bool {
    let event = AccountEvent {
        user: user(n),
        version,
        at: None,
        change,
    };
    let call = IntakeCall::Sync {
        event,
        at: UnixMs(at_ms),
    };
    let IntakeAnswer::Synced { is_changed, ends } = intake(backend, call) else {
        panic!("not the answer to a sync");
    };
    let mut told = ends.clone();
    let mut read = backend.sign_in(n).ends;
    told.sort_by_key(|end| format!("{end:?}"));
    read.sort_by_key(|end| format!("{end:?}"));
    assert_eq!(told, read, "a sign-in reads what was told");
    is_changed
}

fn profile(name: &str, suspended: Option<bool>) -> AccountChange {
    AccountChange::Profile {
        name: Some(name.to_owned()),
        picture: None,
        suspended,
    }
}

/// The name of a user as another one sees it.
fn name_of(backend: &Backend, n: u128) -> String {
    let call = IntakeCall::Profiles {
        after: Some((UnixMs(0), user(0))),
        limit: 100,
    };
    let IntakeAnswer::Profiles { profiles, .. } = intake(backend, call) else {
        panic!("not the answer to profiles");
    };
    let own = profiles.into_iter().find(|profile| profile.user == user(n));
    own.expect("a profile").name
}

/// How a session that begins now is closed; `None`: it is not.
fn closed(
    backend: &Backend,
    n: u128,
    sid: Option<&str>,
    issued_ms: Option<u64>,
) -> Option<CloseCode> {
    let signed_in = backend.sign_in(n);
    let began = Began {
        version: signed_in.version,
        sid: sid.map(sid_hash),
        issued_at: issued_ms.map(UnixMs),
    };
    let end = signed_in.ends.iter().find(|end| end.ends(&began));
    end.map(|end| end.code)
}

#[test]
fn the_newest_profile_counts_and_then_tokens_no_longer_do() {
    for backend in Backend::all() {
        backend.sign_in_as(sign_in(1, Some("by token")));
        assert!(sync(&backend, 1, 5, profile("five", None)));
        assert!(!sync(&backend, 1, 5, profile("again", None)));
        assert!(!sync(&backend, 1, 4, profile("four", None)));
        assert_eq!(name_of(&backend, 1), "five");
        assert!(sync(&backend, 1, 7, profile("seven", None)));
        backend.sign_in_as(sign_in(1, Some("by another token")));
        assert_eq!(name_of(&backend, 1), "seven");
        // Of somebody whom nobody has seen.
        assert!(sync(&backend, 2, 1, profile("new", None)));
        assert_eq!(name_of(&backend, 2), "new");
        let nameless = AccountChange::Profile {
            name: None,
            picture: Some("p".to_owned()),
            suspended: None,
        };
        assert!(sync(&backend, 2, 2, nameless));
        assert_eq!(name_of(&backend, 2), "new");

        // Told page by page, with the rooms of each.
        backend.sign_in(3);
        backend.done(create_group(3, 1, [1]));
        let room = group_id(3, 1);
        let page = |after, limit| {
            let call = IntakeCall::Profiles {
                after: Some(after),
                limit,
            };
            match intake(&backend, call) {
                IntakeAnswer::Profiles { profiles, .. } => profiles,
                other => panic!("{other:?}"),
            }
        };
        let first = page((UnixMs(0), user(0)), 1);
        assert_eq!(first.len(), 1);
        let second = page((first[0].at, first[0].user), 1);
        assert_eq!(second.len(), 1);
        assert_ne!(first[0].user, second[0].user);
        assert!(page((second[0].at, second[0].user), 1).is_empty());
        let both = [&first[0], &second[0]];
        let ada = both
            .iter()
            .find(|profile| profile.user == user(1))
            .expect("told");
        assert_eq!((ada.version, ada.rooms.as_slice()), (7, &[room][..]));
        let call = IntakeCall::Profiles {
            after: None,
            limit: 0,
        };
        let IntakeAnswer::Profiles { now, .. } = intake(&backend, call) else {
            panic!("not the answer to profiles");
        };
        assert!(now.is_some());
    }
}

#[test]
fn a_suspension_ends_sessions_until_a_newer_word() {
    for backend in Backend::all() {
        backend.sign_in(1);
        let before = backend.version(1);
        assert!(sync(&backend, 1, 5, AccountChange::Suspended));
        assert!(backend.version(1) > before, "connections hear of it");
        assert_eq!(closed(&backend, 1, None, None), Some(CloseCode::Forbidden));
        assert!(!sync(&backend, 1, 5, AccountChange::Suspended));
        // The first profile, and an old word on the suspension.
        assert!(sync(&backend, 1, 4, profile("a", Some(false))));
        assert_eq!(name_of(&backend, 1), "a");
        assert_eq!(closed(&backend, 1, None, None), Some(CloseCode::Forbidden));
        // Says nothing of it.
        assert!(sync(&backend, 1, 6, profile("b", None)));
        assert_eq!(closed(&backend, 1, None, None), Some(CloseCode::Forbidden));
        assert!(sync(&backend, 1, 8, profile("c", Some(false))));
        assert_eq!(closed(&backend, 1, None, None), None);
        assert!(!sync(&backend, 1, 7, AccountChange::Suspended), "late");
        assert_eq!(closed(&backend, 1, None, None), None);
        // Newer than any word on the suspension, though not than the profile.
        assert!(sync(&backend, 1, 9, profile("d", Some(true))));
        assert_eq!(closed(&backend, 1, None, None), Some(CloseCode::Forbidden));
    }
}

#[test]
fn revoked_sessions_and_deleted_users_stay_so() {
    for backend in Backend::all() {
        backend.sign_in(1);
        let revoke = |sid: Option<&str>| AccountChange::SessionRevoked {
            sid: sid.map(str::to_owned),
            expires_at: Some(UnixMs(START_MS + 60_000)),
        };
        sync(&backend, 1, 50, profile("a", None));
        assert!(
            sync(&backend, 1, 3, revoke(Some("phone"))),
            "older, and all the same"
        );
        assert!(!sync(&backend, 1, 4, revoke(Some("phone"))));
        let code = Some(CloseCode::Unauthenticated);
        assert_eq!(closed(&backend, 1, Some("phone"), None), code);
        assert_eq!(closed(&backend, 1, Some("laptop"), None), None);
        assert_eq!(closed(&backend, 1, None, None), None);

        // All that were issued until then.
        let before = backend.version(1);
        assert!(sync_at(&backend, 1, 5, revoke(None), START_MS + 10));
        assert!(backend.version(1) > before);
        assert!(!sync_at(&backend, 1, 6, revoke(None), START_MS + 9));
        assert_eq!(
            closed(&backend, 1, Some("laptop"), Some(START_MS + 10)),
            code
        );
        assert_eq!(
            closed(&backend, 1, Some("laptop"), Some(START_MS + 11)),
            None
        );
        // Its token does not say when: it began after.
        assert_eq!(closed(&backend, 1, Some("laptop"), None), None);

        assert!(sync(&backend, 1, 1, AccountChange::Deleted));
        assert_eq!(
            closed(&backend, 1, None, Some(START_MS * 2)),
            Some(CloseCode::UserDeleted)
        );
        assert!(!sync(&backend, 1, 99, profile("b", Some(false))));
        assert!(!sync(&backend, 1, 99, AccountChange::Deleted));
        assert_eq!(
            closed(&backend, 1, None, None),
            Some(CloseCode::UserDeleted)
        );
    }
}

#[test]
fn what_is_said_in_any_order_ends_the_same() {
    for backend in Backend::all() {
        let versions: Vec<u64> = (1..=40).collect();
        for (n, step) in [(1, 7), (2, 11), (3, 23)] {
            // Each version twice, in an order of its own.
            for round in 0..80u64 {
                let version = versions[(round * step % 40) as usize];
                sync(
                    &backend,
                    n,
                    version,
                    profile(&format!("v{version}"), Some(version % 2 == 1)),
                );
            }
            assert_eq!(name_of(&backend, n), "v40");
            assert_eq!(closed(&backend, n, None, None), None);
        }
    }
}
