//! The tokens that are still in the running, and the filters that drop some of them.

use std::cmp::Ordering;

use super::draw;
use super::exp::{BLOCK, exp, largest, sum};

/// Tokens with their logits, in the order of the ids.
pub struct Candidates {
    ids: Vec<u32>,
    logits: Vec<f32>,
    /// The largest logit.
    largest: f32,
}

impl Candidates {
    /// Every token with a finite logit, or of these the `top_k` likeliest (0 is all). `largest` is the
    /// largest logit.
    pub fn new(logits: &[f32], largest: f32, top_k: usize) -> Self {
        let last = match top_k {
            0 => None,
            k => kth_best(logits, k),
        };
        let stays = |id: usize, logit: f32| match last {
            None => true,
            Some(last) => by_score(&(logit, id), &last).is_le(),
        };
        let (ids, logits) = logits
            .iter()
            .enumerate()
            .filter(|&(id, &logit)| logit > f32::NEG_INFINITY && stays(id, logit))
            .map(|(id, &logit)| (id as u32, logit))
            .unzip();
        Self {
            ids,
            logits,
            largest,
        }
    }

    /// Keeps the smallest set of likeliest tokens whose probability reaches `mass`, at least one.
    pub fn top_p(&mut self, mass: f32) {
        let weights = self.weights();
        self.keep(within(&self.logits, reaching(&self.logits, &weights, mass)));
    }

    /// Keeps the smallest set of tokens whose probability reaches `mass`, at least one, those first
    /// whose information (`-ln p`) is nearest to the expected one, the entropy.
    pub fn typical(&mut self, mass: f32) {
        let weights = self.weights();
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let log_total = total.ln();
        let log_p = |logit: f32| f64::from(logit - self.largest) - log_total;
        let entropy: f64 = self
            .logits
            .iter()
            .zip(&weights)
            .map(|(&logit, &weight)| -log_p(logit) * f64::from(weight) / total)
            .sum();
        let nearness: Vec<f32> = self
            .logits
            .iter()
            .map(|&logit| -(log_p(logit) + entropy).abs() as f32)
            .collect();
        self.keep(within(&nearness, reaching(&nearness, &weights, mass)));
    }

    /// Keeps the tokens that are at least `fraction` times as likely as the likeliest.
    pub fn min_p(&mut self, fraction: f32) {
        let keep: Vec<usize> = (0..self.ids.len())
            .filter(|&i| exp(self.logits[i] - self.largest) >= fraction)
            .collect();
        self.keep(keep);
    }

    /// XTC: of the tokens at least `threshold` likely only the least likely stays; where there are
    /// fewer than two of them, all do.
    pub fn exclude_top_choices(&mut self, threshold: f32) {
        let total = sum(&self.logits, self.largest);
        let least = f64::from(threshold) * total;
        let is_likely = |i: &usize| f64::from(exp(self.logits[*i] - self.largest)) >= least;
        let last = (0..self.ids.len())
            .filter(is_likely)
            .max_by(|&a, &b| by_score(&(self.logits[a], a), &(self.logits[b], b)));
        let keep: Vec<usize> = (0..self.ids.len())
            .filter(|i| Some(*i) == last || !is_likely(i))
            .collect();
        self.keep(keep);
    }

    /// The token that `draw` names among what is left.
    pub fn pick(self, temperature: f32, draw: f64) -> u32 {
        self.ids[draw::pick(&self.logits, self.largest, temperature, draw)]
    }

    /// The tokens' probabilities, not normalized; the likeliest has 1.
    fn weights(&self) -> Vec<f32> {
        self.logits
            .iter()
            .map(|&logit| exp(logit - self.largest))
            .collect()
    }

    /// Keeps the given places, which are in order.
    fn keep(&mut self, places: Vec<usize>) {
        self.ids = places.iter().map(|&place| self.ids[place]).collect();
        self.logits = places.iter().map(|&place| self.logits[place]).collect();
        self.largest = largest(&self.logits);
    }
}

/// A place and its score. The order is total: largest score first, equals by place.
type Scored = (f32, usize);

fn by_score(a: &Scored, b: &Scored) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The places of the `count` largest scores, largest first, equals by place. No score is NaN.
pub fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut scored = largest_scores(scores, count);
    scored.sort_unstable_by(by_score);
    scored.into_iter().map(|(_, place)| place).collect()
}

/// The last of the `count` best, or of all where there are less.
fn kth_best(scores: &[f32], count: usize) -> Option<Scored> {
    largest_scores(scores, count).into_iter().max_by(by_score)
}

/// The `count` largest scores, in any order.
fn largest_scores(scores: &[f32], count: usize) -> Vec<Scored> {
    let count = count.min(scores.len());
    if count == 0 {
        return Vec::new();
    }
    // At least `count` scores are as large as the `count`-th largest of the blocks' maxima.
    let mut maxima: Vec<f32> = scores.chunks(BLOCK).map(largest).collect();
    let bound = if count < maxima.len() {
        *maxima
            .select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a))
            .1
    } else {
        f32::NEG_INFINITY
    };
    let mut scored: Vec<Scored> = scores
        .iter()
        .enumerate()
        .filter(|(_, score)| **score >= bound)
        .map(|(place, &score)| (score, place))
        .collect();
    if count < scored.len() {
        scored.select_nth_unstable_by(count - 1, by_score);
        scored.truncate(count);
    }
    scored
}

/// The last of the best scores whose weights reach the part `mass` of all; `None` is all of them.
///
/// Nearly always it is among the first few. Where it is not, halves are weighed, each found without
/// sorting: linear time, also for a distribution that is nearly flat.
fn reaching(scores: &[f32], weights: &[f32], mass: f32) -> Option<Scored> {
    const FIRST: usize = 64;
    let total: f64 = weights
        .chunks(BLOCK)
        .map(|block| block.iter().map(|&weight| f64::from(weight)).sum::<f64>())
        .sum();
    let enough = total * f64::from(mass);
    let weight = |&(_, place): &Scored| f64::from(weights[place]);
    let mut reached = 0.0;
    for place in best(scores, FIRST) {
        reached += f64::from(weights[place]);
        if reached >= enough {
            return Some((scores[place], place));
        }
    }
    let places = scores.iter().enumerate();
    let mut all: Vec<Scored> = places.map(|(place, &score)| (score, place)).collect();
    let mut rest = &mut all[..];
    reached = 0.0;
    while !rest.is_empty() {
        let middle = rest.len() / 2;
        let (better, middle, worse) = rest.select_nth_unstable_by(middle, by_score);
        let with_better = reached + better.iter().map(weight).sum::<f64>();
        let with_middle = with_better + weight(middle);
        if with_better >= enough {
            rest = better;
        } else if with_middle >= enough {
            return Some(*middle);
        } else {
            reached = with_middle;
            rest = worse;
        }
    }
    None
}

/// The places, in order, of the scores that are not behind `last`.
fn within(scores: &[f32], last: Option<Scored>) -> Vec<usize> {
    let Some(last) = last else {
        return (0..scores.len()).collect();
    };
    scores
        .iter()
        .enumerate()
        .filter(|&(place, &score)| by_score(&(score, place), &last).is_le())
        .map(|(place, _)| place)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(probabilities: &[f32]) -> Candidates {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let largest = largest(&logits);
        Candidates::new(&logits, largest, 0)
    }

    fn left(mut candidates: Candidates, filter: impl FnOnce(&mut Candidates)) -> Vec<u32> {
        filter(&mut candidates);
        assert!(candidates.ids.is_sorted());
        candidates.ids
    }

    #[test]
    fn top_k_takes_the_first_of_equals() {
        let top_k = |logits: &[f32], k| Candidates::new(logits, 3.0, k).ids;
        assert_eq!(top_k(&[2.0, 3.0, 2.0, 2.0], 2), [0, 1]);
        assert_eq!(top_k(&[3.0, 3.0], 9), [0, 1]);
        assert_eq!(top_k(&[3.0, f32::NEG_INFINITY, 1.0], 3), [0, 2]);
    }

    #[test]
    fn top_p_is_the_smallest_set_that_reaches_it() {
        let probabilities = [0.125, 0.5, 0.25, 0.125];
        for (p, want) in [
            (0.0, &[1u32][..]),
            (0.4, &[1]),
            (0.6, &[1, 2]),
            (0.75, &[1, 2]),
            (0.8, &[0, 1, 2]),
            (0.99, &[0, 1, 2, 3]),
        ] {
            assert_eq!(left(of(&probabilities), |c| c.top_p(p)), want, "{p}");
        }
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let probabilities = [0.125, 0.5, 0.25, 0.125];
        assert_eq!(left(of(&probabilities), |c| c.min_p(0.4)), [1, 2]);
        assert_eq!(left(of(&probabilities), |c| c.min_p(1.0)), [1]);
    }

    #[test]
    fn typical_prefers_the_expected_to_the_likely() {
        // Entropy 1.08 nats; the informations are 0.69, 1.20, 1.61 … so that the second is nearest.
        let probabilities = [0.5, 0.3, 0.2];
        let entropy: f32 = probabilities.iter().map(|p: &f32| -p * p.ln()).sum();
        let mut distance: Vec<(f32, u32)> = probabilities
            .iter()
            .zip(0..)
            .map(|(p, id)| ((-p.ln() - entropy).abs(), id))
            .collect();
        distance.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(distance[0].1, 1, "the example is as described");
        assert_eq!(left(of(&probabilities), |c| c.typical(0.2)), [1]);
        let second = distance[1].1;
        let mut two = [1, second];
        two.sort_unstable();
        assert_eq!(left(of(&probabilities), |c| c.typical(0.4)), two);
    }

    #[test]
    fn xtc_leaves_the_least_likely_of_the_likely() {
        let probabilities = [0.1, 0.4, 0.3, 0.2];
        let xtc = |threshold| left(of(&probabilities), |c| c.exclude_top_choices(threshold));
        assert_eq!(xtc(0.15), [0, 3]);
        assert_eq!(xtc(0.25), [0, 2, 3]);
        assert_eq!(xtc(0.35), [0, 1, 2, 3]);
        assert_eq!(xtc(0.5), [0, 1, 2, 3]);
        assert_eq!(xtc(0.0), [0]);
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_whole_sort(
            scores in prop::collection::vec(-5i8..5, 0..2000),
            count in 0usize..300,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut sorted: Vec<usize> = (0..scores.len()).collect();
            sorted.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            sorted.truncate(count);
            prop_assert_eq!(best(&scores, count), sorted);
        }

        #[test]
        fn what_reaches_a_mass_is_the_shortest_such_prefix_of_a_sort(
            scores in prop::collection::vec(-3i8..3, 1..900),
            mass in 0f32..1.0,
        ) {
            let weights: Vec<f32> = scores.iter().map(|&score| f32::from(score).exp2()).collect();
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            // Powers of two: the sums are exact in any order.
            let enough = weights.iter().map(|&w| f64::from(w)).sum::<f64>() * f64::from(mass);
            let mut want = Vec::new();
            let mut reached = 0.0;
            for place in best(&scores, scores.len()) {
                want.push(place);
                reached += f64::from(weights[place]);
                if reached >= enough {
                    break;
                }
            }
            want.sort_unstable();
            prop_assert_eq!(within(&scores, reaching(&scores, &weights, mass)), want);
        }

        #[test]
        fn any_filters_leave_a_token_and_a_draw_finds_one_of_them(
            logits in prop::collection::vec(-30f32..30.0, 1..600),
            k in 0usize..40, typical in 0f32..1.0, p in 0f32..1.0, min_p in 0f32..1.0,
            threshold in 0f32..0.6, temperature in 0.01f32..10.0, draw in 0f64..1.0,
        ) {
            let largest = largest(&logits);
            let mut candidates = Candidates::new(&logits, largest, k);
            prop_assert!(k == 0 || candidates.ids.len() == k.min(logits.len()));
            candidates.typical(typical);
            candidates.top_p(p);
            candidates.min_p(min_p);
            candidates.exclude_top_choices(threshold);
            let ids = candidates.ids.clone();
            prop_assert!(!ids.is_empty());
            prop_assert!(ids.contains(&candidates.pick(temperature, draw)));
        }
    }
}
