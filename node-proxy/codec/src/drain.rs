// SPDX-License-Identifier: Apache-2.0
//! The signal that tells the connections of one worker to end when their requests are done.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Starts the drain of every connection that holds a [`Drain`] of it.
#[derive(Default)]
pub struct DrainTrigger {
    state: Rc<State>,
}

/// Tells one connection whether the drain has started.
pub struct Drain {
    state: Rc<State>,
    slot: Cell<Option<usize>>,
}

#[derive(Default)]
struct State {
    draining: Cell<bool>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl DrainTrigger {
    /// A trigger that has not fired.
    pub fn new() -> Self {
        DrainTrigger::default()
    }

    /// A listener for one connection.
    pub fn drain(&self) -> Drain {
        Drain { state: self.state.clone(), slot: Cell::new(None) }
    }

    /// Tells every connection to finish the requests that it has and then to close.
    pub fn start(&self) {
        self.state.draining.set(true);
        let wakers: Vec<Waker> = self.state.wakers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drain {
    /// Whether the drain has started.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.draining.get()
    }

    /// Ready when the drain has started; wakes one task, the last that asked.
    pub(crate) fn poll_draining(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_draining() {
            return Poll::Ready(());
        }
        let mut wakers = self.state.wakers.borrow_mut();
        let slot = self.slot.get().unwrap_or_else(|| {
            let slot = self.state.free.borrow_mut().pop().unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            });
            self.slot.set(Some(slot));
            slot
        });
        match &mut wakers[slot] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            entry => *entry = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.state.wakers.borrow_mut()[slot] = None;
            self.state.free.borrow_mut().push(slot);
        }
    }
}
