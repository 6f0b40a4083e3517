//! [`Tsc`]: criterion's measurement in clocks of the processor's time stamp counter, the unit in
//! which data planes are compared.

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
        frame::tsc::now()
    }

    /// How fast the counter runs.
    #[must_use]
    pub fn gigahertz() -> f64 {
        frame::tsc::hertz() as f64 / 1e9
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
