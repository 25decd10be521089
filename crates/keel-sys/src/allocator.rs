//! mimalloc as the global allocator.
//!
//! The crate `mimalloc` asks for every block with its alignment. That takes a slower way through the allocator, and a
//! much slower one where the free blocks of a size are those that were given back last: a third of what allocating
//! costs a request. Every block is aligned to a word anyway, which is all that nearly every type asks for.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// The allocator; to be named with `#[global_allocator]`.
#[derive(Debug)]
pub struct Mimalloc;

/// What every block is aligned to, in bytes.
const NATURAL_ALIGN: usize = align_of::<usize>();

// SAFETY: mimalloc gives blocks of at least the size asked for that nobody else has, aligned as asked for or, without
// that, to a word; null where there is no memory. It doesn't unwind. `free` and `realloc` take blocks of either kind.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL_ALIGN {
            // SAFETY: takes a number only.
            unsafe { mi::mi_malloc(layout.size()) }.cast()
        } else {
            // SAFETY: takes numbers only; a layout's alignment is a power of two.
            unsafe { mi::mi_malloc_aligned(layout.size(), layout.align()) }.cast()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL_ALIGN {
            // SAFETY: takes a number only.
            unsafe { mi::mi_zalloc(layout.size()) }.cast()
        } else {
            // SAFETY: takes numbers only; a layout's alignment is a power of two.
            unsafe { mi::mi_zalloc_aligned(layout.size(), layout.align()) }.cast()
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller gives a block of this allocator's that nobody uses any more.
        unsafe { mi::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= NATURAL_ALIGN {
            // SAFETY: as in `dealloc`, and a number.
            unsafe { mi::mi_realloc(block.cast(), size) }.cast()
        } else {
            // SAFETY: as in `dealloc`, and numbers; a layout's alignment is a power of two.
            unsafe { mi::mi_realloc_aligned(block.cast(), size, layout.align()) }.cast()
        }
    }
}

unsafe extern "C" {
    // Of <mimalloc.h>. The crate has it among what needs yet another one.
    safe fn mi_collect(force: bool);
}

/// Gives memory that the calling thread has freed back to the kernel at once, as far as whole pages are free. What is
/// needed again soon has to be had from the kernel again. Without effect where another allocator is in use.
pub fn give_back() {
    mi_collect(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_hold_what_they_should_and_keep_it() {
        for align in [1, 2, 4, 8, 16, 64, 4096] {
            for size in [1, 7, 8, 9, 24, 100, 736, 1025, 16 << 10, 1 << 20] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout isn't empty; each block is used within its size and given back once.
                unsafe {
                    let block = Mimalloc.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    block.write_bytes(7, size);
                    let grown = Mimalloc.realloc(block, layout, 3 * size);
                    assert!(!grown.is_null() && grown.addr().is_multiple_of(align), "{layout:?}");
                    assert!(std::slice::from_raw_parts(grown, size).iter().all(|byte| *byte == 7));
                    Mimalloc.dealloc(grown, Layout::from_size_align(3 * size, align).unwrap());
                    let zeroed = Mimalloc.alloc_zeroed(layout);
                    assert!(!zeroed.is_null() && zeroed.addr().is_multiple_of(align), "{layout:?}");
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    Mimalloc.dealloc(zeroed, layout);
                }
            }
        }
    }
}
