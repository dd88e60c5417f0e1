//! What a stream's groups must be, and whether they are: a second opinion in plain Rust that
//! shares no code with the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Relative difference that is allowed between two ways of summing the same numbers in binary64.
pub const TOLERANCE: f64 = 1e-9;

/// One group of a sender, as it is added up record by record.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedGroup {
    a: u32,
    /// Shared, because many streams may have the same groups.
    text: Arc<[u8]>,
    b_sum: u64,
    c_sum: f64,
    c_lost: f64,
    d_min: i8,
    /// Records so far.
    pub count: u64,
}

impl ExpectedGroup {
    /// A group without a record.
    pub fn new(a: u32, text: Vec<u8>) -> Self {
        let text = text.into();
        ExpectedGroup { a, text, b_sum: 0, c_sum: 0.0, c_lost: 0.0, d_min: i8::MAX, count: 0 }
    }

    /// The same group without a record.
    pub fn emptied(&self) -> Self {
        let text = Arc::clone(&self.text);
        ExpectedGroup { text, b_sum: 0, c_sum: 0.0, c_lost: 0.0, d_min: i8::MAX, count: 0, ..*self }
    }

    /// Adds a record. The sum of C keeps what each addition loses (Neumaier's way), so it is
    /// better than the engine's and can judge it.
    pub fn add(&mut self, b: u16, c: f32, d: i8) {
        self.add_c(f64::from(c));
        self.b_sum += u64::from(b);
        self.d_min = self.d_min.min(d);
        self.count += 1;
    }

    /// Adds all records of `other`, so many times. Counts and minima stay exact. The sum of C is
    /// as good as if the records had been added one by one: what the product and the addition lose
    /// is kept like everything else that is lost.
    pub fn add_times(&mut self, other: &ExpectedGroup, times: u64) {
        if times == 0 || other.count == 0 {
            return;
        }
        let factor = times as f64;
        let product = other.c_sum * factor;
        self.c_lost += other.c_sum.mul_add(factor, -product) + other.c_lost * factor;
        self.add_c(product);
        self.b_sum += other.b_sum * times;
        self.d_min = self.d_min.min(other.d_min);
        self.count += other.count * times;
    }

    fn add_c(&mut self, c: f64) {
        let sum = self.c_sum + c;
        let (large, small) =
            if self.c_sum.abs() >= c.abs() { (self.c_sum, c) } else { (c, self.c_sum) };
        self.c_lost += (large - sum) + small;
        self.c_sum = sum;
    }
}

/// One group as an engine reported it. E is in its shown form, see `docs/PROTOCOL.md`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedGroup {
    /// A.
    pub a: u32,
    /// E, escaped.
    pub e: String,
    /// Mean of B.
    pub b_mean: f64,
    /// Sum of C.
    pub c_sum: f64,
    /// Minimum of D.
    pub d_min: i8,
    /// Records.
    pub count: u64,
}

/// The groups of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    records: u64,
    groups: Vec<ExpectedGroup>,
}

impl Expected {
    /// The groups of a stream of `records` records.
    pub fn new(records: u64, groups: Vec<ExpectedGroup>) -> Self {
        Expected { records, groups }
    }

    /// The groups, in no particular order.
    pub fn groups(&self) -> &[ExpectedGroup] {
        &self.groups
    }

    /// Every difference to what was reported, as a sentence; none if all is right. Counts and
    /// minima must be equal, means and sums equal to [`TOLERANCE`].
    pub fn differences(&self, status: &str, records: u64, groups: &[ReportedGroup]) -> Vec<String> {
        let mut found = Vec::new();
        if status != "complete" {
            found.push(format!("status is {status}, expected complete"));
        }
        if records != self.records {
            found.push(format!("records: {records} reported, {} sent", self.records));
        }
        let mut reported: BTreeMap<(u32, String), &ReportedGroup> =
            groups.iter().map(|group| ((group.a, group.e.clone()), group)).collect();
        if reported.len() != groups.len() {
            found.push(format!("{} groups stand twice", groups.len() - reported.len()));
        }
        for group in &self.groups {
            let text = shown(&group.text);
            let name = format!("group A={} E={text}", group.a);
            match reported.remove(&(group.a, text)) {
                Some(reported) => group.compare(reported, &name, &mut found),
                None => found.push(format!("{name}: missing")),
            }
        }
        found.extend(reported.keys().map(|(a, e)| format!("group A={a} E={e}: was never sent")));
        found
    }
}

impl ExpectedGroup {
    fn compare(&self, reported: &ReportedGroup, name: &str, found: &mut Vec<String>) {
        if reported.count != self.count {
            found.push(format!("{name}: count {} reported, {} sent", reported.count, self.count));
        }
        if reported.d_min != self.d_min {
            found.push(format!("{name}: D_min {} reported, {} sent", reported.d_min, self.d_min));
        }
        let b_mean = self.b_sum as f64 / self.count as f64;
        if !near(reported.b_mean, b_mean) {
            found.push(format!("{name}: B_mean {} reported, {b_mean} sent", reported.b_mean));
        }
        let c_sum = self.c_sum + self.c_lost;
        if !near(reported.c_sum, c_sum) {
            found.push(format!("{name}: C_sum {:e} reported, {c_sum:e} sent", reported.c_sum));
        }
    }
}

fn near(left: f64, right: f64) -> bool {
    left == right || (left - right).abs() <= TOLERANCE * left.abs().max(right.abs())
}

/// E as results show it, written a second time on purpose.
fn shown(text: &[u8]) -> String {
    let mut out = String::new();
    for &byte in text {
        if byte == b'\\' {
            out.push_str(r"\\");
        } else if byte.is_ascii_graphic() || byte == b' ' {
            out.push(byte as char);
        } else {
            out.push_str(&format!(r"\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let mut group = ExpectedGroup::new(7, b"pump\x01".to_vec());
        group.add(10, 1.5, 3);
        group.add(20, 2.5, -3);
        Expected::new(2, vec![group])
    }

    fn reported() -> ReportedGroup {
        ReportedGroup { a: 7, e: r"pump\x01".into(), b_mean: 15.0, c_sum: 4.0, d_min: -3, count: 2 }
    }

    #[test]
    fn equal_groups_have_no_difference() {
        assert_eq!(expected().differences("complete", 2, &[reported()]), Vec::<String>::new());
    }

    /// The oracle sums integers.
    #[test]
    fn many_times_at_once_are_as_good_as_one_by_one() {
        const TIMES: u64 = 123_456_789_013;
        // Each is 24 bits and a shift, so that an f32 holds it, and their sum needs more than 53.
        let values =
            [(16_777_213_i128, 60), (3, 0), (12_345_677, 33), (-16_777_211, 59), (7_654_321, 11)];
        let mut once = ExpectedGroup::new(1, b"x".to_vec());
        for ((bits, shift), n) in values.into_iter().zip(1..) {
            once.add(n, (bits << shift) as f32, -(n as i8));
        }
        let mut all = once.emptied();
        all.add_times(&once, 0);
        assert_eq!(all, once.emptied());
        all.add(7, 5.0, 100);
        all.add_times(&once, TIMES);
        all.add_times(&once.emptied(), 5);
        assert_eq!((all.count, all.d_min, all.b_sum), (5 * TIMES + 1, -5, 15 * TIMES + 7));
        let block: i128 = values.into_iter().map(|(bits, shift)| bits << shift).sum();
        let exact = (block * i128::from(TIMES) + 5) as f64;
        assert_eq!(all.c_sum + all.c_lost, exact);
    }

    #[test]
    fn each_difference_is_found() {
        let with = |change: fn(&mut ReportedGroup)| {
            let mut group = reported();
            change(&mut group);
            expected().differences("complete", 2, &[group]).join("; ")
        };
        assert!(with(|g| g.count = 3).contains("count 3 reported, 2 sent"));
        assert!(with(|g| g.d_min = 3).contains("D_min"));
        assert!(with(|g| g.b_mean = 15.0001).contains("B_mean"));
        assert!(with(|g| g.c_sum = f64::NAN).contains("C_sum"));
        assert!(with(|g| g.a = 8).contains("missing"));
        assert!(with(|g| g.a = 8).contains("was never sent"));
        let twice = expected().differences("complete", 2, &[reported(), reported()]);
        assert_eq!(twice, ["1 groups stand twice"]);
        assert!(expected().differences("incomplete", 2, &[reported()])[0].contains("status"));
        assert!(expected().differences("complete", 1, &[reported()])[0].contains("records"));
    }
}
