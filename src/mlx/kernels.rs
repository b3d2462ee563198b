//! Our kernels for the CPU: with which threads and instructions they run.

use std::str::FromStr;
use std::sync::Mutex;

use super::bridge::ffi;
use super::cores::usable_cores;
use super::error::{MlxError, OrMlxError};

/// A set of instructions that kernels are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 (F, BW, DQ, VL) with VNNI, which only counts where activations are quantized.
    Avx512Vnni,
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// AVX2 with FMA and F16C, and with AVX-VNNI.
    Avx2Vnni,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// NEON of 64-bit Arm.
    Neon,
    /// Whatever the compiler takes for granted.
    Portable,
}

impl Isa {
    const ALL: [Self; 6] = [
        Self::Avx512Vnni,
        Self::Avx512,
        Self::Avx2Vnni,
        Self::Avx2,
        Self::Neon,
        Self::Portable,
    ];

    /// As in `--cpu-isa`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512 => "avx512",
            Self::Avx2Vnni => "avx2vnni",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Those of this machine, the fastest first.
    pub fn available() -> Vec<Self> {
        let names = ffi::available_isas();
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// The one in use.
    pub fn current() -> Self {
        ffi::current_isa().parse().unwrap_or(Self::Portable)
    }

    /// Uses these instructions from now on; fails where this machine lacks them. Results differ
    /// between sets in their last bits, so this belongs before the first computation.
    #[track_caller]
    pub fn choose(self) -> Result<(), MlxError> {
        if ffi::choose_isa(self.name()) {
            return Ok(());
        }
        let here: Vec<_> = Self::available().into_iter().map(Self::name).collect();
        Err(MlxError::new(format!(
            "this processor has no {}; it has {}",
            self.name(),
            here.join(", ")
        )))
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == text)
            .ok_or_else(|| format!("{text} is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// From now on, on the CPU, activations are quantized to 8 bits on their way into products with matrices that are
/// affinely quantized to 4 or 8 bits: faster, and less exact. Off at first. What was queued before may or may not
/// see it, so this belongs before the first computation.
pub fn quantize_activations(quantize: bool) {
    ffi::quantize_activations(quantize);
}

/// How many threads there are; `None` before they were started.
static THREADS: Mutex<Option<usize>> = Mutex::new(None);

/// Most threads a process may ask for.
pub const MOST_THREADS: usize = 1024;

/// Computes with this many threads, the stream's own among them. Results do not depend on it.
#[track_caller]
pub fn set_threads(threads: usize) -> Result<(), MlxError> {
    let mut current = THREADS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    start_threads(&mut current, threads)
}

/// Starts a thread for each core that this process may use, unless the threads run already.
#[track_caller]
pub(super) fn start() -> Result<(), MlxError> {
    let mut current = THREADS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    match *current {
        Some(_) => Ok(()),
        None => start_threads(&mut current, usable_cores()),
    }
}

#[track_caller]
fn start_threads(current: &mut Option<usize>, threads: usize) -> Result<(), MlxError> {
    if threads == 0 || threads > MOST_THREADS {
        return Err(MlxError::new(format!(
            "{threads} threads; it must be 1 to {MOST_THREADS}"
        )));
    }
    ffi::set_kernel_threads(threads).or_mlx()?;
    *current = Some(threads);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_the_portable_kernels_and_starts_with_its_fastest() {
        let available = Isa::available();
        assert_eq!(available.last(), Some(&Isa::Portable));
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("sse9".parse::<Isa>().is_err());
    }

    #[test]
    fn instructions_that_are_not_there_are_refused_by_name() {
        for isa in Isa::ALL {
            if !Isa::available().contains(&isa) {
                let error = isa.choose().unwrap_err().to_string();
                assert!(
                    error.contains(isa.name()) && error.contains("portable"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn a_senseless_number_of_threads_is_refused() {
        assert!(set_threads(0).is_err());
        assert!(set_threads(MOST_THREADS + 1).is_err());
    }
}
