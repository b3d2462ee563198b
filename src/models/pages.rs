//! Pages of a mapped file, brought into memory before they are used.

use std::ops::Range;
use std::thread;

use memmap2::Mmap;

/// No system has smaller pages.
const PAGE: usize = 4096;

/// Has the pages of a range read and mapped, by all cores: where the file is in the system's cache already,
/// mapping its pages is all that loading takes.
pub(super) fn bring_in(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    if let Err(error) = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len()) {
        tracing::debug!(%error, "the disk is read page by page");
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = range.len().div_ceil(threads).next_multiple_of(PAGE);
    thread::scope(|scope| {
        for start in range.clone().step_by(share).skip(1) {
            let part = start..range.end.min(start + share);
            let work = {
                let part = part.clone();
                move || bring_in_part(map, part)
            };
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                bring_in_part(map, part);
            }
        }
        bring_in_part(map, range.start..range.end.min(range.start + share));
    });
}

fn bring_in_part(map: &Mmap, part: Range<usize>) {
    // One call for all pages, from Linux 5.14 on.
    #[cfg(target_os = "linux")]
    if map
        .advise_range(memmap2::Advice::PopulateRead, part.start, part.len())
        .is_ok()
    {
        return;
    }
    touch(&map[part]);
}

/// Reads a byte of each page.
pub(super) fn touch(bytes: &[u8]) {
    for byte in bytes.iter().step_by(PAGE) {
        std::hint::black_box(*byte);
    }
}
