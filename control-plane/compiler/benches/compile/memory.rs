//! What is allocated and not freed, while somebody asks.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use mimalloc::MiMalloc;

/// What the program has, too.
pub const NAME: &str = "mimalloc";

/// The program's allocator, counted where `COUNTS` says so.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

static COUNTS: AtomicBool = AtomicBool::new(false);
/// Modulo its size: what was there before may be freed.
static BYTES: AtomicUsize = AtomicUsize::new(0);

fn count(more: usize, fewer: usize) {
    if COUNTS.load(Relaxed) {
        BYTES.fetch_add(more.wrapping_sub(fewer), Relaxed);
    }
}

// SAFETY: every call is handed on to the program's allocator as it is.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}

/// How many bytes what `make` returns has on the heap.
pub fn bytes_of<T>(make: impl FnOnce() -> T) -> usize {
    BYTES.store(0, Relaxed);
    COUNTS.store(true, Relaxed);
    let made = make();
    COUNTS.store(false, Relaxed);
    let bytes = BYTES.load(Relaxed);
    drop(made);
    bytes
}
