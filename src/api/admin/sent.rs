//! What operators see and do of the webhooks that we send.

use super::{Admin, STORE_MAX, confused, limit_of, store_away, told};
use crate::api::problem::Problem;
use crate::chat::port::hooks::{HookAnswer, HookCall, HookKept, HookState};
use crate::chat::port::{StoreAnswer, StoreCall};
use crate::limits;
use crate::protocol::admin::{
    AdminHook, AdminHookDone, AdminHookState, AdminHooks, AdminHooksList,
};
use axum::response::Response;
use uuid::Uuid;

impl Admin {
    pub(super) async fn list_hooks(&self, list: AdminHooksList) -> Result<Response, Problem> {
        let state = match list.state.unwrap_or(AdminHookState::GivenUp) {
            AdminHookState::Waiting => HookState::Waiting,
            AdminHookState::Delivered => HookState::Delivered,
            AdminHookState::GivenUp => HookState::GivenUp,
        };
        let limit = limit_of(list.limit, limits::ADMIN_PAGE)?;
        // Nobody's: it asks how things stand, and takes nothing.
        let look = HookCall::Lease {
            holder: Uuid::nil(),
            takes: false,
        };
        let HookAnswer::Lease(lease) = self.ask_hooks(look).await? else {
            return Err(confused());
        };
        let HookAnswer::Hooks(kept) = self.ask_hooks(HookCall::Kept { state, limit }).await? else {
            return Err(confused());
        };
        Ok(told(&AdminHooks {
            disabled_at: lease.disabled_at,
            oldest_waiting: lease.oldest,
            webhooks: kept.into_iter().map(hook_seen).collect(),
        }))
    }

    pub(super) async fn change_hooks(&self, call: HookCall) -> Result<Response, Problem> {
        match self.ask_hooks(call).await? {
            HookAnswer::Done(changed) => Ok(told(&AdminHookDone { changed })),
            _ => Err(confused()),
        }
    }

    async fn ask_hooks(&self, call: HookCall) -> Result<HookAnswer, Problem> {
        let call = StoreCall::Hooks(Box::new(call));
        match self.store.call_within(STORE_MAX, call).await {
            Ok(StoreAnswer::Hooks(answer)) => Ok(*answer),
            Ok(_) => Err(confused()),
            Err(error) => Err(store_away(&error)),
        }
    }
}

fn hook_seen(kept: HookKept) -> AdminHook {
    AdminHook {
        webhook_id: format!("msg_{}", kept.id.simple()),
        r#type: kept.kind,
        room_id: kept.room,
        created_at: kept.created_at,
        state: match kept.state {
            HookState::Waiting => AdminHookState::Waiting,
            HookState::Delivered => AdminHookState::Delivered,
            HookState::GivenUp => AdminHookState::GivenUp,
        },
        attempts: kept.attempts,
        status: kept.status,
        error: kept.error,
    }
}
