//! The gateway's page, API and metrics.
//!
//! The gateway's thread publishes a [`Snapshot`] now and then into a [`Board`]; the server's thread answers from it, so a
//! slow browser never delays an acknowledgement, and answering never looks at the gateway while it works.

pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod routes;

use std::sync::{Arc, Mutex, PoisonError};

use gateway::history::Range;
use gateway::view::Snapshot;

/// What the page's plots ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryQuestion {
    pub node: u32,
    pub group: u8,
    pub range: Range,
}

/// One channel's buckets, scaled, oldest first; `None` is a gap.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct HistoryChannel {
    pub name: String,
    pub unit: String,
    pub points: Vec<Option<HistoryPoint>>,
}

/// A bucket of a plot.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct HistoryPoint {
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub late: bool,
}

/// The plots of one group.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct HistoryView {
    pub step_ns: u64,
    pub channels: Vec<HistoryChannel>,
}

/// Where the gateway's thread and the server's meet.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<BoardState>,
}

#[derive(Debug, Default)]
struct BoardState {
    snapshot: Arc<Snapshot>,
    histories: Vec<(HistoryQuestion, Arc<HistoryView>)>,
    wanted: Vec<HistoryQuestion>,
}

impl Board {
    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock().snapshot)
    }

    /// The plots of a group as of the last publication, and a note that somebody looks at them. `None` the first time.
    pub(crate) fn history(&self, question: HistoryQuestion) -> Option<Arc<HistoryView>> {
        let mut state = self.lock();
        if !state.wanted.contains(&question) && state.wanted.len() < 64 {
            state.wanted.push(question);
        }
        state.histories.iter().find(|(q, _)| *q == question).map(|(_, view)| Arc::clone(view))
    }

    /// Publishes a snapshot and the plots that somebody asked for since the last publication.
    pub(crate) fn publish(
        &self,
        snapshot: Snapshot,
        mut answer: impl FnMut(HistoryQuestion) -> Option<HistoryView>,
    ) {
        let wanted = std::mem::take(&mut self.lock().wanted);
        // Outside the lock: the server answers from the last snapshot meanwhile.
        let histories: Vec<_> =
            wanted.into_iter().filter_map(|question| Some((question, Arc::new(answer(question)?)))).collect();
        let mut state = self.lock();
        state.snapshot = Arc::new(snapshot);
        for (question, view) in histories {
            state.histories.retain(|(q, _)| *q != question);
            state.histories.push((question, view));
        }
        let excess = state.histories.len().saturating_sub(256);
        state.histories.drain(..excess);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BoardState> {
        // A panic elsewhere cannot leave the state half-written: every change under the lock is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
