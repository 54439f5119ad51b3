//! The pool and the queue between handler and task: blocks of an `alloc-core` pool, handed over in order.
//!
//! ```
//! use alloc_core::pool::Pool;
//! use node::app::Blocks;
//! use node::sampler::Sink;
//! use node::store::{Queue, connect};
//!
//! let (mut pool, mut queue) = (Pool::<256, 8>::new(), Queue::<256, 9>::new());
//! let (mut handler, mut task) = connect(&mut pool, &mut queue);
//! let block = handler.block().unwrap();
//! handler.put(block, 40).unwrap();
//! assert_eq!(task.free(), 7);
//! assert_eq!(task.take().unwrap().as_ref().len(), 40);
//! assert_eq!(task.free(), 8); // dropped, so back
//! ```

use alloc_core::pool::{Block, Gauge, Pool, Taker};
use heapless::spsc::{Consumer, Producer};

use crate::app::Blocks;
use crate::sampler::Sink;

/// A block with the length of what is in it.
#[derive(Debug)]
pub struct Filled<'a, const BLOCK: usize> {
    block: Block<'a, BLOCK>,
    len: usize,
}

impl<const BLOCK: usize> AsRef<[u8]> for Filled<'_, BLOCK> {
    fn as_ref(&self) -> &[u8] {
        self.block.get(..self.len).unwrap_or(&[])
    }
}

/// The queue: room for one less than `N`. With one more than the pool has blocks it is never full.
pub type Queue<'a, const BLOCK: usize, const N: usize> = heapless::spsc::Queue<Filled<'a, BLOCK>, N>;

/// Splits pool and queue into the handler's side and the task's.
pub fn connect<'a, 'q, const BLOCK: usize, const COUNT: usize, const N: usize>(
    pool: &'a mut Pool<BLOCK, COUNT>,
    queue: &'q mut Queue<'a, BLOCK, N>,
) -> (HandlerSide<'a, 'q, BLOCK, COUNT>, TaskSide<'a, 'q, BLOCK, COUNT>) {
    let taker = pool.taker();
    let gauge = taker.gauge();
    let (producer, consumer) = queue.split();
    (HandlerSide { taker, producer }, TaskSide { consumer, gauge })
}

/// Takes empty blocks, gives filled ones.
pub struct HandlerSide<'a, 'q, const BLOCK: usize, const COUNT: usize> {
    taker: Taker<'a, BLOCK, COUNT>,
    producer: Producer<'q, Filled<'a, BLOCK>>,
}

impl<const BLOCK: usize, const COUNT: usize> core::fmt::Debug for HandlerSide<'_, '_, BLOCK, COUNT> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HandlerSide").field("pool", &self.taker.stats()).finish_non_exhaustive()
    }
}

/// A block with the side that it came from.
#[derive(Debug)]
pub struct Empty<'a, const BLOCK: usize>(Block<'a, BLOCK>);

impl<const BLOCK: usize> AsMut<[u8]> for Empty<'_, BLOCK> {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut *self.0
    }
}

impl<'a, const BLOCK: usize, const COUNT: usize> Sink for HandlerSide<'a, '_, BLOCK, COUNT> {
    type Block = Empty<'a, BLOCK>;

    fn block(&mut self) -> Option<Self::Block> {
        self.taker.take().map(Empty)
    }

    fn put(&mut self, block: Self::Block, len: usize) -> Result<(), Self::Block> {
        self.producer.enqueue(Filled { block: block.0, len }).map_err(|filled| Empty(filled.block))
    }
}

/// Takes filled blocks; dropping them gives them back.
pub struct TaskSide<'a, 'q, const BLOCK: usize, const COUNT: usize> {
    consumer: Consumer<'q, Filled<'a, BLOCK>>,
    gauge: Gauge<'a, BLOCK, COUNT>,
}

impl<const BLOCK: usize, const COUNT: usize> core::fmt::Debug for TaskSide<'_, '_, BLOCK, COUNT> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TaskSide").field("free", &self.gauge.free()).finish_non_exhaustive()
    }
}

impl<'a, const BLOCK: usize, const COUNT: usize> Blocks for TaskSide<'a, '_, BLOCK, COUNT> {
    type Block = Filled<'a, BLOCK>;

    fn take(&mut self) -> Option<Self::Block> {
        self.consumer.dequeue()
    }

    fn free(&self) -> usize {
        // Only "none" matters to the caller, and that is cheap to find out while there is one.
        if self.gauge.has_free() { self.gauge.free() } else { 0 }
    }
}
