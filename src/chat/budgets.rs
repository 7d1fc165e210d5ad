//! One budget for a user on this node, wherever they are: on several connections of several shards, over HTTP,
//! or on the connection after this one.
//!
//! Each connection has a whole budget and takes from it at once, without asking anybody. A user's home keeps
//! a [`Ledger`] of those who have, or had a moment ago, more than one place: requests over HTTP take from
//! it, connections tell it once a tick what was taken on them, and it tells them what was taken elsewhere.
//! So a send waits for nobody, a user with one connection costs nothing, and beyond a tick
//! ([`super::TICK_MS`]) there is one limit for all places; what was taken too much within it is owed.
//!
//! Next: [`super::rate`].

use super::bus::{BudgetMessage, Context, MeshMessage};
use super::map::{Map, Seeded};
use super::rate::{Budget, Left, Limits, Spent};
use super::sessions::Sessions;
use super::{ConnId, ShardIx};
use crate::protocol::UserId;

/// What users have taken in all their places, as far as their home knows; kept until all of it is there again.
#[derive(Debug)]
pub struct Ledger {
    users: Map<UserId, Budget>,
    /// Users who took something over HTTP that their connections do not know yet.
    spenders: Vec<UserId>,
}

impl Ledger {
    /// Nobody took anything.
    pub fn new(seed: u64) -> Ledger {
        Ledger {
            users: Map::with_hasher(Seeded::with_seed(seed)),
            spenders: Vec::new(),
        }
    }

    /// Forgets those of whom there is nothing to know any more, and gives them.
    fn forget_whole(&mut self, now_us: u64, limits: Limits) -> Vec<UserId> {
        let is_whole = |_: &UserId, budget: &mut Budget| budget.taken(now_us, limits).is_nothing();
        self.users
            .extract_if(is_whole)
            .map(|(user, _)| user)
            .collect()
    }
}

impl Sessions {
    /// A connection of a user whose home this is was signed in on that shard.
    pub fn came(&mut self, shard: ShardIx, user: UserId, conn: ConnId, ctx: &mut Context<'_>) {
        let max = match ctx.config.connections_per_user {
            0 => usize::MAX,
            max => max,
        };
        if let Some((shard, oldest)) = self.crowd.came(user, (shard, conn), max) {
            ctx.tell(shard, MeshMessage::Crowded(oldest));
        }
        match self.crowd.places(user) {
            [only] if self.ledger.users.contains_key(&user) => tell_shared(*only, true, ctx),
            [] | [_] => (),
            [first, new] => {
                tell_shared(*first, true, ctx);
                tell_shared(*new, true, ctx);
            }
            [.., new] => tell_shared(*new, true, ctx),
        }
        // A new place begins with what is known to be taken; said last, so that it is not told back.
        if let Some(budget) = self.ledger.users.get(&user) {
            let taken = budget.taken(ctx.now.mono_us, ctx.rate_limits());
            let debit = BudgetMessage::Debit(conn, taken);
            ctx.tell(shard, MeshMessage::Budget(debit));
        }
    }

    /// Tells the home of its user that a connection is gone, and what was taken on it: the next one begins
    /// with that.
    pub(super) fn tell_went(&mut self, user: UserId, conn: ConnId, ctx: &mut Context<'_>) {
        let home = ctx.home_of_user(user);
        let (now_us, limits) = (ctx.now.mono_us, ctx.rate_limits());
        if let Some(session) = self.get_mut(conn) {
            let untold = std::mem::take(&mut session.budget.untold);
            let spent = match session.shared {
                true => untold,
                false => session.budget.taken(now_us, limits),
            };
            if !spent.is_nothing() {
                let spent = BudgetMessage::Spent(user, conn, spent);
                ctx.tell(home, MeshMessage::Budget(spent));
            }
        }
        ctx.tell(home, MeshMessage::Went(user, conn));
    }

    /// It is gone.
    pub fn went(&mut self, shard: ShardIx, user: UserId, conn: ConnId, ctx: &mut Context<'_>) {
        self.crowd.went(user, (shard, conn));
        self.tell_alone(user, ctx);
    }

    /// Tells the last connection of a user that it is alone, if it is.
    fn tell_alone(&self, user: UserId, ctx: &mut Context<'_>) {
        if let [last] = self.crowd.places(user)
            && !self.ledger.users.contains_key(&user)
        {
            tell_shared(*last, false, ctx);
        }
    }

    /// Counts a command over HTTP, and a send as both; says when to come back if it is too many, and what is
    /// left.
    pub(super) fn take_at_home(
        &mut self,
        user: UserId,
        limits: Limits,
        is_send: bool,
        ctx: &mut Context<'_>,
    ) -> (Result<(), u64>, Left) {
        let now_us = ctx.now.mono_us;
        if !self.ledger.users.contains_key(&user)
            && let [only] = self.crowd.places(user)
        {
            tell_shared(*only, true, ctx);
        }
        let budget = self.ledger.users.entry(user).or_default();
        let taken = budget.take(now_us, limits, is_send);
        if taken.is_ok() && budget.add_untold(is_send) {
            self.ledger.spenders.push(user);
        }
        (taken, budget.left(now_us, limits, is_send))
    }

    /// What places of a user tell each other.
    pub fn budget_message(&mut self, from: ShardIx, message: BudgetMessage, ctx: &mut Context<'_>) {
        let (now_us, limits) = (ctx.now.mono_us, ctx.rate_limits());
        match message {
            BudgetMessage::Shared(conn, is_shared) => {
                let Some(session) = self.get_mut(conn) else {
                    return;
                };
                let was_shared = std::mem::replace(&mut session.shared, is_shared);
                if is_shared && !was_shared {
                    // The others begin with what was taken here while they were not there.
                    session.budget.untold = session.budget.taken(now_us, limits);
                    if !session.budget.untold.is_nothing() {
                        self.spenders.push(conn);
                    }
                }
            }
            BudgetMessage::Spent(user, conn, spent) => {
                let budget = self.ledger.users.entry(user).or_default();
                budget.debit(now_us, limits, spent);
                self.tell_others(user, Some((from, conn)), spent, ctx);
            }
            BudgetMessage::Debit(conn, spent) => {
                if let Some(session) = self.get_mut(conn) {
                    session.budget.debit(now_us, limits, spent);
                }
            }
        }
    }

    /// Tells what was taken since the last tick.
    pub(super) fn tick_budgets(&mut self, ctx: &mut Context<'_>) {
        for conn in std::mem::take(&mut self.spenders) {
            let Some(session) = self.get_mut(conn) else {
                continue;
            };
            let spent = std::mem::take(&mut session.budget.untold);
            if let Some(user) = session.user()
                && !spent.is_nothing()
            {
                let home = ctx.home_of_user(user);
                let spent = BudgetMessage::Spent(user, conn, spent);
                ctx.tell(home, MeshMessage::Budget(spent));
            }
        }
        for user in std::mem::take(&mut self.ledger.spenders) {
            let budget = self.ledger.users.get_mut(&user);
            let spent = budget.map(|budget| std::mem::take(&mut budget.untold));
            self.tell_others(user, None, spent.unwrap_or_default(), ctx);
        }
        let whole = self.ledger.forget_whole(ctx.now.mono_us, ctx.rate_limits());
        for user in whole {
            self.tell_alone(user, ctx);
        }
    }

    fn tell_others(
        &self,
        user: UserId,
        but: Option<(ShardIx, ConnId)>,
        spent: Spent,
        ctx: &mut Context<'_>,
    ) {
        let places = self.crowd.places(user).iter().copied();
        for (shard, conn) in places.filter(|place| Some(*place) != but) {
            let debit = BudgetMessage::Debit(conn, spent);
            ctx.tell(shard, MeshMessage::Budget(debit));
        }
    }
}

fn tell_shared((shard, conn): (ShardIx, ConnId), is_shared: bool, ctx: &mut Context<'_>) {
    let shared = BudgetMessage::Shared(conn, is_shared);
    ctx.tell(shard, MeshMessage::Budget(shared));
}
