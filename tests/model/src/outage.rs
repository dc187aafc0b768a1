//! What befalls Redis.

use crate::action::Action;
use crate::redis::Keys;
use crate::scenario::Model;
use crate::system::State;

impl State {
    pub(crate) fn fail(&self, model: &Model, action: Action) -> Option<Self> {
        let mut next = self.clone();
        match action {
            // A disk that is never read again need not be kept.
            Action::Sync
                if model.scenario.disk_lags && self.left.restarts > 0 && self.disk != self.redis.keys =>
            {
                next.disk = self.redis.keys.clone();
                return Some(next);
            }
            Action::Restart => {
                next.left.restarts = next.left.restarts.checked_sub(1)?;
                if model.scenario.disk_lags {
                    next.redis.keys = self.disk.clone();
                }
                if next.left.restarts == 0 {
                    next.disk = Keys::default();
                }
            }
            Action::LoseDisk => {
                next.left.losses = next.left.losses.checked_sub(1)?;
                next.redis.keys = Keys::default();
                next.redis.identity.history = next.fresh_name;
            }
            _ => return None,
        }
        next.redis.identity.process = next.fresh_name;
        next.fresh_name += 1;
        next.verified = None;
        Some(next)
    }

    /// The former master becomes the replica. Until it has copied its new master, it has what it had.
    pub(crate) fn fail_over(&self, action: Action) -> Option<Self> {
        if self.left.promotions == 0 {
            return None;
        }
        let mut next = self.clone();
        if action == Action::Replicate {
            next.replica.keys = self.redis.keys.clone();
            next.replica.identity.history = self.redis.identity.history;
            return (next != *self).then_some(next);
        }
        next.left.promotions -= 1;
        std::mem::swap(&mut next.redis, &mut next.replica);
        // A replica that is never promoted need not be kept.
        if next.left.promotions == 0 {
            next.replica.keys = Keys::default();
        }
        next.redis.identity.history = next.fresh_name;
        next.fresh_name += 1;
        next.verified = None;
        Some(next)
    }
}
