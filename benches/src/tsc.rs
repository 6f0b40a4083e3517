//! [`Tsc`]: criterion's measurement in clocks of the processor's time stamp counter, the unit in
//! which data planes are compared.

use std::time::{Duration, Instant};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// Clocks of the time stamp counter. On a machine without one, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Tsc;

impl Tsc {
    /// What the counter shows.
    #[inline]
    #[must_use]
    pub fn now() -> u64 {
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: reads a register; every x86_64 processor has it.
            unsafe { core::arch::x86_64::_rdtsc() }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            use std::sync::OnceLock;
            static START: OnceLock<Instant> = OnceLock::new();
            let elapsed = START.get_or_init(Instant::now).elapsed().as_nanos();
            u64::try_from(elapsed).unwrap_or(u64::MAX)
        }
    }

    /// How fast the counter runs, measured over a tenth of a second.
    #[must_use]
    pub fn gigahertz() -> f64 {
        let (start, clocks) = (Instant::now(), Self::now());
        std::thread::sleep(Duration::from_millis(100));
        (Self::now() - clocks) as f64 / start.elapsed().as_nanos() as f64
    }
}

impl Measurement for Tsc {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        Self::now()
    }

    fn end(&self, start: u64) -> u64 {
        Self::now() - start
    }

    fn add(&self, left: &u64, right: &u64) -> u64 {
        left + right
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Clocks
    }
}

/// Prints clocks, and with a throughput in elements clocks an element.
struct Clocks;

impl ValueFormatter for Clocks {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "clocks"
    }

    fn scale_throughputs(
        &self,
        _: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        match throughput {
            Throughput::Elements(elements) => {
                for value in values {
                    *value /= *elements as f64;
                }
                "clocks/packet"
            }
            _ => "clocks",
        }
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "clocks"
    }
}
