//! `auth.refresh`: a new token for a connection that is there.
//!
//! Invariant: the old token counts until the new one was verified and the store has said that its session has not
//! ended; whatever is refused, the connection goes on until its end.

use super::bus::Context;
use super::commands::Refused;
use super::port::{Identity, IdentityError, SignIn, StoreAnswer, StoreCall, StoreError};
use super::session::State;
use super::sessions::{Call, Sessions};
use super::sign_in::{ERASED, refusal_of};
use super::{ConnId, Effect, service};
use crate::protocol::ending::{Began, sid_hash};
use crate::protocol::reply::{self, Refreshed};
use crate::protocol::{ErrorCode, RequestId};

impl Sessions {
    /// A new token.
    pub(super) fn refresh(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        token: String,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return Ok(());
        };
        if ready.refreshing.is_some() {
            return Err((ErrorCode::RateLimited, "a token is being verified already"));
        }
        ready.refreshing = Some(request);
        ctx.effects.push(Effect::Verify(conn, token));
        Ok(())
    }

    /// The token of an `auth.refresh` was verified.
    pub(super) fn refreshed(
        &mut self,
        conn: ConnId,
        result: Result<Identity, IdentityError>,
        ctx: &mut Context<'_>,
    ) {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return;
        };
        let Some(request) = ready.refreshing else {
            return;
        };
        let is_own = |identity: &Identity| identity.user == ready.user;
        if result.as_ref().is_ok_and(is_own)
            && let Ok(identity) = result
        {
            // Its session may have ended already.
            let user = SignIn {
                user: identity.user,
                name: None,
                picture: None,
                resume: Vec::new(),
                describe_max: 0,
            };
            let ticket = ctx.call(StoreCall::SignIn(vec![user]));
            let call = Call::Refresh(conn, Box::new(identity));
            self.calls.insert(ticket, call);
            return;
        }
        ready.refreshing = None;
        match result {
            // The old token goes on until its end.
            Ok(_) => {
                let message = "the token names another user";
                self.refuse(conn, request, ErrorCode::Forbidden, message, ctx);
            }
            Err(error) => {
                let (code, _) = refusal_of(error);
                self.refuse(conn, request, code, "the token is not accepted", ctx);
            }
        }
    }

    /// What ends sessions of the user was read: the new token counts, if its session has not ended.
    pub(super) fn refresh_read(
        &mut self,
        conn: ConnId,
        identity: &Identity,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return;
        };
        let Some(request) = ready.refreshing.take() else {
            return;
        };
        let signed_in = match result {
            Ok(StoreAnswer::SignIn(signed_in)) => signed_in.into_iter().next(),
            Ok(_) | Err(_) => None,
        };
        if matches!(signed_in, Some(None)) {
            return self.refuse(conn, request, ErrorCode::Unauthenticated, ERASED, ctx);
        }
        let Some(signed_in) = signed_in.flatten() else {
            let message = "the store does not answer";
            return self.refuse(conn, request, ErrorCode::Unavailable, message, ctx);
        };
        let began = Began {
            version: ready.began.version,
            sid: identity.sid.as_deref().map(sid_hash),
            issued_at: identity.issued_at,
        };
        if let Some(end) = signed_in.ends.iter().find(|end| end.ends(&began)) {
            let code = service::code_of(end.code);
            return self.refuse(conn, request, code, service::ENDED, ctx);
        }
        ready.began = began;
        ready.expires_at = identity.expires_at;
        self.remind_of_expiry(conn, identity.expires_at, ctx);
        if let Some(id) = request {
            let refreshed = Refreshed {
                token_expires_at: identity.expires_at,
            };
            self.say_json(conn, &reply::ack(id, &refreshed), ctx);
        }
    }
}
