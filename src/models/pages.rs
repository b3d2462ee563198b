//! Pages of mapped files, brought into memory before they are used.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use memmap2::Mmap;

/// What is mapped around a page that is read: 64 KB by Linux, where it is in memory. No system has pages of less
/// than 4 KB.
const MAPPED_AT_ONCE: usize = if cfg!(target_os = "linux") {
    64 << 10
} else {
    4096
};

/// Bytes that a thread brings in at once, and between two reports of progress: a multiple of the largest pages that
/// a file is mapped by, so that no two threads share one.
pub(super) const PIECE: usize = 16 << 20;

/// Bytes below which a thread, or letting the pages go, costs more than it brings.
const SMALL: usize = 1 << 20;

/// Asks for large pages. A file that is not in the system's cache yet is then read by megabytes and kept in such pages
/// where the file system can: bringing it in takes the processor a tenth of the time, now and in every later process.
pub(super) fn prefer_large(map: &Mmap) {
    #[cfg(target_os = "linux")]
    if let Err(error) = map.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "the file is mapped by small pages");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

/// Has the pages of all ranges read and mapped, by all cores, and tells of each piece how many bytes it has: where
/// the files are in the system's cache already, mapping their pages is all that loading takes.
pub(super) fn bring_in(ranges: &[(&Mmap, Range<usize>)], mut tell: impl FnMut(usize)) {
    let pieces: Vec<(&Mmap, Range<usize>)> = ranges
        .iter()
        .flat_map(|(map, range)| cut(range.clone()).map(move |piece| (*map, piece)))
        .collect();
    if ranges.iter().map(|(_, range)| range.len()).sum::<usize>() < SMALL {
        for (map, piece) in pieces {
            let bytes = piece.len();
            bring_in_piece(map, piece);
            tell(bytes);
        }
        return;
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (done, each) = mpsc::channel();
        for _ in 0..threads.min(pieces.len()) {
            let (pieces, next, done) = (&pieces, &next, done.clone());
            let work = move || {
                while let Some((map, piece)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bring_in_piece(map, piece.clone());
                    // Who listens waits for all of us.
                    let _ = done.send(piece.len());
                }
            };
            // Without any thread the pages come when they are used.
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, work) {
                tracing::debug!(%error, "a thread less reads the weights");
            }
        }
        drop(done);
        for bytes in each {
            tell(bytes);
        }
    });
}

/// The parts of a range that lie between multiples of [`PIECE`].
fn cut(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = range.start / PIECE;
    (first..range.end.div_ceil(PIECE))
        .map(move |index| range.start.max(index * PIECE)..range.end.min((index + 1) * PIECE))
}

/// Reads a byte here and there. One call for all pages (`MADV_POPULATE_READ`) takes twice the time where they are in
/// the system's cache, since it looks at each.
fn bring_in_piece(map: &Mmap, piece: Range<usize>) {
    // Linux reads some megabytes around a page that it has to read.
    #[cfg(all(unix, not(target_os = "linux")))]
    if let Err(error) = map.advise_range(memmap2::Advice::WillNeed, piece.start, piece.len()) {
        tracing::debug!(%error, "the disk is read page by page");
    }
    for byte in map[piece].iter().step_by(MAPPED_AT_ONCE) {
        std::hint::black_box(*byte);
    }
}

/// Lets the pages of a range go that was copied, so that weights are not resident twice.
#[cfg(unix)]
pub(super) fn release(map: &Mmap, range: Range<usize>) {
    if range.len() < SMALL {
        return;
    }
    // SAFETY: the map is read-only and has a file behind it: pages that are dropped are read again when
    // they are needed, also those of what lies beside the range.
    let dropped = unsafe {
        map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
    };
    if let Err(error) = dropped {
        tracing::debug!(%error, "pages that were copied stay resident");
    }
}

#[cfg(not(unix))]
pub(super) fn release(_: &Mmap, _: Range<usize>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_multiples_of_a_piece() {
        let cut = |range| cut(range).collect::<Vec<_>>();
        assert_eq!(
            cut(10..2 * PIECE + 1),
            [10..PIECE, PIECE..2 * PIECE, 2 * PIECE..2 * PIECE + 1]
        );
    }
}
