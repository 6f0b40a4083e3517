//! Changes of the configuration one after the other, and the way back from other threads.
//!
//! ```text
//!  control loop: in_turn(change) --> a turn --> asks the plugins' thread ... --> goes on --> its end
//!                                      |            (the loop does other things)
//!                                      +-- other changes wait in a queue
//! ```
//!
//! Compiling takes seconds, in which routes and neighbors must go on. So a change that needs another thread
//! leaves it a [`Resume`], and holds its [`Turn`] meanwhile. Whoever drops a turn ends it, also a thread that
//! dies with it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::run::control_loop::ControlLoop;

/// What the control loop goes on with.
pub(crate) type Resume = Box<dyn FnOnce(&mut ControlLoop) + Send>;

/// The right to change the configuration, until it is dropped.
pub(crate) struct Turn(#[expect(dead_code, reason = "its life is what counts")] Arc<()>);

type Change = Box<dyn FnOnce(&mut ControlLoop, Turn)>;

/// Whose turn it is, and who waits.
#[derive(Default)]
pub(crate) struct Turns {
    taken: Weak<()>,
    waiting: VecDeque<Change>,
}

impl Turns {
    /// Whether a change is under way.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.strong_count() > 0
    }
}

impl ControlLoop {
    /// Makes a change once those before it have ended.
    pub(crate) fn in_turn(&mut self, change: impl FnOnce(&mut Self, Turn) + 'static) {
        self.turns.waiting.push_back(Box::new(change));
        self.take_turns();
    }

    /// Makes the changes whose turn has come.
    pub(crate) fn take_turns(&mut self) {
        while !self.turns.is_taken()
            && let Some(change) = self.turns.waiting.pop_front()
        {
            let turn = Arc::new(());
            self.turns.taken = Arc::downgrade(&turn);
            change(self, Turn(turn));
        }
    }

    /// To be called by another thread with what it found out: the loop goes on with that.
    pub(crate) fn resume_with<T: Send + 'static>(
        &self,
        go_on: impl FnOnce(&mut Self, T) + Send + 'static,
    ) -> impl FnOnce(T) + Send + 'static {
        let resumes = self.resumes.0.clone();
        move |told| {
            // A loop that has ended goes on with nothing.
            let _ = resumes.send(Box::new(move |this: &mut Self| go_on(this, told)));
        }
    }
}
