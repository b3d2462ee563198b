//! The sampler as a whole: order, distributions, seeds, and the batch.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::batch::{Turn, sample};
use super::*;
use crate::engine::grammar::{GrammarCompiler, GrammarSpec, Hold, SharedMatcher};
use crate::mlx::Array;
use crate::text::Tokenizer;

fn seeded(params: SamplingParams) -> Sampler {
    let seed = Some(7);
    Sampler::new(SamplingParams { seed, ..params }, &[])
}

fn greedy() -> SamplingParams {
    SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    }
}

fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// How often each token is drawn in `count` draws, without penalties.
fn histogram(params: &SamplingParams, logits: &[f32], count: usize) -> Vec<usize> {
    let mut sampler = seeded(params.clone());
    let mut seen = vec![0; logits.len()];
    for _ in 0..count {
        seen[sampler.sample(logits, None).unwrap() as usize] += 1;
    }
    seen
}

/// Chi-square of counts against probabilities.
fn chi_square(seen: &[usize], probabilities: &[f64]) -> f64 {
    let count = seen.iter().sum::<usize>() as f64;
    seen.iter()
        .zip(probabilities)
        .map(|(&n, p)| (n as f64 - count * p).powi(2) / (count * p))
        .sum()
}

#[test]
fn greedy_takes_the_likeliest_and_the_first_of_equals() {
    assert_eq!(seeded(greedy()).sample(&[0.0, 3.0, 3.0], None), Ok(1));
}

#[test]
fn a_mask_and_a_bias_decide() {
    let masked = seeded(greedy()).sample(&[0.0, 3.0, 2.0], Some(&[0b101]));
    assert_eq!(masked, Ok(2));
    let params = SamplingParams {
        logit_bias: vec![(0, 10.0), (99, 5.0)],
        ..greedy()
    };
    assert_eq!(seeded(params).sample(&[0.0, 3.0, 2.0], None), Ok(0));
    let nothing = seeded(greedy()).sample(&[0.0, 3.0], Some(&[0]));
    assert_eq!(nothing, Err(SampleError::NothingAllowed));
    let short = seeded(greedy()).sample(&[0.0; 40], Some(&[2]));
    assert_eq!(short, Ok(1), "what the mask does not reach is not allowed");
}

#[test]
fn a_token_is_withheld_until_the_output_is_long_enough() {
    let params = SamplingParams {
        withheld: vec![(1, 2), (2, usize::MAX), (99, 1)],
        ..greedy()
    };
    let mut sampler = seeded(params.clone());
    let mut next = |mask: Option<&[u32]>| sampler.sample(&[0.0, 2.0, 3.0], mask);
    assert_eq!((next(None), next(None)), (Ok(0), Ok(0)));
    assert_eq!(next(None), Ok(1), "two others were chosen");
    assert_eq!(next(Some(&[0b101])), Ok(0));
    assert_eq!(next(Some(&[0b100])), Ok(2), "the grammar leaves no choice");
}

#[test]
fn not_a_number_is_an_error_at_every_temperature() {
    for temperature in [0.0, 1.0] {
        for strange in [f32::NAN, f32::INFINITY] {
            let params = SamplingParams {
                temperature,
                ..SamplingParams::default()
            };
            let result = seeded(params).sample(&[0.0, strange], None);
            assert_eq!(result, Err(SampleError::NotANumber));
        }
    }
}

#[test]
fn penalties_follow_their_formulas() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        ..greedy()
    };
    let mut row = [4.0, -1.0, 3.0];
    Sampler::new(params, &[0, 1, 0]).penalize(&mut row);
    assert_eq!(row, [2.0, -2.0, 3.0]);

    let params = SamplingParams {
        presence_penalty: 0.5,
        frequency_penalty: 1.0,
        ..greedy()
    };
    let mut sampler = Sampler::new(params, &[2]);
    sampler.sample(&[9.0, 0.0, 0.0], None).unwrap();
    sampler.sample(&[9.0, 0.0, 0.0], None).unwrap();
    let mut row = [9.0, 0.0, 1.0];
    sampler.penalize(&mut row);
    assert_eq!(row, [6.5, 0.0, 1.0]);
}

#[test]
fn the_repetition_window_is_the_last_tokens_of_prompt_and_output() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        repetition_context: 2,
        ..greedy()
    };
    let mut sampler = Sampler::new(params, &[0, 1]);
    sampler.sample(&[0.0, 0.0, 9.0], None).unwrap();
    let mut row = [4.0, 4.0, 4.0];
    sampler.penalize(&mut row);
    assert_eq!(row, [4.0, 2.0, 2.0]);
}

#[test]
fn dry_breaks_a_loop_that_greedy_would_not_leave() {
    let dry = Dry {
        multiplier: 0.8,
        ..Dry::default()
    };
    let run = |params| {
        let mut sampler = Sampler::new(params, &[0, 1, 0, 1]);
        let row = |last: u32| {
            if last == 0 {
                [0.0, 2.0, 1.0]
            } else {
                [2.0, 0.0, 1.0]
            }
        };
        let mut last = 1;
        for _ in 0..6 {
            last = sampler.sample(&row(last), None).unwrap();
            if last == 2 {
                return true;
            }
        }
        false
    };
    assert!(!run(greedy()));
    assert!(run(SamplingParams { dry, ..greedy() }));
}

#[test]
fn each_filter_leaves_only_what_it_promises() {
    let row = logits(&[0.5, 0.25, 0.125, 0.125]);
    let off = SamplingParams::default;
    let filters = [
        SamplingParams { top_k: 2, ..off() },
        SamplingParams {
            top_p: 0.7,
            ..off()
        },
        SamplingParams {
            min_p: 0.4,
            ..off()
        },
        // Entropy 1.21 nats: the second (1.39), then the first (0.69).
        SamplingParams {
            typical_p: 0.7,
            ..off()
        },
    ];
    for params in filters {
        let seen = histogram(&params, &row, 600);
        assert!(seen[0] > seen[1] && seen[1] > 0, "{params:?}: {seen:?}");
        assert_eq!(seen[2] + seen[3], 0, "{params:?}: {seen:?}");
    }
}

#[test]
fn xtc_acts_as_often_as_it_is_told() {
    let params = SamplingParams {
        xtc_probability: 0.5,
        xtc_threshold: 0.3,
        ..SamplingParams::default()
    };
    // Half of the draws: 0.6 and 0.4. The other half: only the second.
    let seen = histogram(&params, &logits(&[0.6, 0.4]), 10_000);
    assert!(chi_square(&seen, &[0.3, 0.7]) < 10.8, "{seen:?}");
}

#[test]
fn draws_follow_the_distribution_and_the_temperature() {
    let probabilities: Vec<f32> = (1..=40).map(|i| i as f32 / 820.0).collect();
    for temperature in [0.5f32, 1.0, 2.0] {
        let params = SamplingParams {
            temperature,
            ..SamplingParams::default()
        };
        let seen = histogram(&params, &logits(&probabilities), 40_000);
        let weights: Vec<f64> = probabilities
            .iter()
            .map(|&p| f64::from(p).powf(1.0 / f64::from(temperature)))
            .collect();
        let total: f64 = weights.iter().sum();
        let want: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        // The 99.9 % quantile for 39 degrees of freedom.
        let chi = chi_square(&seen, &want);
        assert!(chi < 72.1, "temperature {temperature}: {chi}");
    }
}

#[test]
fn filters_leave_the_proportions_of_what_they_keep() {
    let params = SamplingParams {
        top_k: 3,
        ..SamplingParams::default()
    };
    let seen = histogram(&params, &logits(&[0.1, 0.4, 0.2, 0.3]), 20_000);
    assert_eq!(seen[0], 0);
    let chi = chi_square(&seen[1..], &[4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
    assert!(chi < 13.8, "{chi}");
}

#[test]
fn the_filters_come_before_the_temperature() {
    let params = SamplingParams {
        temperature: 100.0,
        top_p: 0.6,
        ..SamplingParams::default()
    };
    let seen = histogram(&params, &logits(&[0.7, 0.2, 0.1]), 100);
    assert_eq!(seen, [100, 0, 0]);
}

#[test]
fn a_seed_repeats_and_seeds_and_choices_differ() {
    let run = |seed, choice| {
        let params = SamplingParams {
            seed: Some(seed),
            choice,
            ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(params, &[]);
        (0..32)
            .map(|_| sampler.sample(&[0.0; 50], None).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1, 0), run(1, 0));
    assert_ne!(run(1, 0), run(2, 0));
    assert_ne!(run(1, 0), run(1, 1));
    assert_ne!(run(1, 1), run(2, 0));
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let filters = (0usize..30, 0.1f32..1.5, 0.1f32..1.5, 0f32..0.2, 0f32..1.0);
    let penalties = (0.5f32..2.0, -1f32..1.0, -1f32..1.0, 0f32..2.0);
    let rest = (prop_oneof![Just(0f32), 0.1f32..2.0], any::<u64>());
    (filters, penalties, rest).prop_map(
        |((top_k, top_p, typical_p, min_p, xtc), (repetition, presence, frequency, dry), rest)| {
            SamplingParams {
                temperature: rest.0,
                seed: Some(rest.1),
                top_k,
                top_p: top_p.min(1.0),
                typical_p: typical_p.min(1.0),
                min_p,
                xtc_probability: xtc,
                repetition_penalty: repetition,
                presence_penalty: presence,
                frequency_penalty: frequency,
                dry: Dry {
                    multiplier: dry,
                    ..Dry::default()
                },
                ..SamplingParams::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What a row gets does not depend on its company, nor on whether a step was queued before the
    /// one ahead of it was read.
    #[test]
    fn a_batch_gives_each_row_what_it_gets_alone(
        params in prop::collection::vec(any_params(), 1..5),
        rows in prop::collection::vec(prop::collection::vec(-8f32..8.0, 70), 5),
        steps in 1usize..4,
    ) {
        let prompt = [3, 4, 3, 4];
        let alone: Vec<Vec<u32>> = params
            .iter()
            .zip(&rows)
            .map(|(params, row)| {
                let mut sampler = Sampler::new(params.clone(), &prompt);
                (0..steps).map(|_| sampler.sample(row, None).unwrap()).collect()
            })
            .collect();

        let samplers: Vec<_> = params
            .iter()
            .map(|params| Arc::new(Mutex::new(Sampler::new(params.clone(), &prompt))))
            .collect();
        let count = samplers.len();
        let logits = Array::from_f32(&rows[..count].concat(), &[count as i32, 70]).unwrap();
        let queued: Vec<_> = (0..steps)
            .map(|_| {
                let turn = |sampler: &Arc<Mutex<Sampler>>| Turn {
                    sampler: sampler.clone(),
                    grammar: None,
                    logprobs: None,
                };
                let picks = sample(&logits, samplers.iter().map(turn).collect()).unwrap();
                Array::async_eval_all(&[picks.ids()]).unwrap();
                picks
            })
            .collect();
        for (step, picks) in queued.into_iter().enumerate() {
            let ids = picks.ids().to_vec_f32().unwrap();
            let tokens: Vec<u32> = picks.wait().unwrap().into_iter().map(|t| t.unwrap().token.id).collect();
            let want: Vec<u32> = alone.iter().map(|tokens| tokens[step]).collect();
            prop_assert_eq!(&tokens, &want);
            prop_assert_eq!(ids, want.iter().map(|&id| id as f32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_batch_reports_each_rows_failure_and_logprobs_and_goes_on() {
    let turn = |logit_bias: &[(u32, f32)]| Turn {
        sampler: Arc::new(Mutex::new(seeded(SamplingParams {
            logit_bias: logit_bias.to_vec(),
            ..greedy()
        }))),
        grammar: None,
        logprobs: Some(1),
    };
    const NEVER: f32 = f32::NEG_INFINITY;
    let values = [0.0, f32::NAN, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0];
    let logits = Array::from_f32(&values, &[4, 2]).unwrap();
    let turns = vec![
        turn(&[]),
        turn(&[]),
        turn(&[(0, NEVER), (1, NEVER)]),
        turn(&[(1, NEVER)]),
    ];
    let picks = sample(&logits, turns).unwrap();
    let outcomes = picks.wait().unwrap();
    assert_eq!(outcomes[0], Err(SampleError::NotANumber.into()));
    let best = &outcomes[1].as_ref().unwrap().token;
    assert_eq!(best.id, 1);
    assert_eq!(best.logprobs, Some(logprobs(&[1.0, 2.0], 1, 1)));
    assert_eq!(outcomes[2], Err(SampleError::NothingAllowed.into()));
    let biased = &outcomes[3].as_ref().unwrap().token;
    assert_eq!(biased.id, 0);
    let own = logprobs(&[1.0, 2.0], 0, 1);
    assert_eq!(biased.logprobs, Some(own), "a bias does not change them");

    let error = sample(&logits, vec![turn(&[])]).err().unwrap();
    assert!(error.message().contains("[4, 2]"), "{error}");
}

#[test]
fn queued_batches_follow_their_rows_grammars() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers/byte-level");
    let tokenizer = Arc::new(Tokenizer::load(&dir).unwrap());
    let vocab = tokenizer.vocab_size();
    let stop = tokenizer.token_id("<|end|>").unwrap();
    let compiler = GrammarCompiler::new(tokenizer.clone(), vocab, &[stop]).unwrap();
    let texts = ["qz", "q"];
    let turns: Vec<Turn> = texts
        .iter()
        .map(|text| Turn {
            sampler: Arc::new(Mutex::new(seeded(greedy()))),
            grammar: Some(SharedMatcher::new(
                compiler
                    .compile(&GrammarSpec::Regex((*text).to_owned()))
                    .unwrap(),
            )),
            logprobs: None,
        })
        .collect();
    let logits = Array::from_f32(&vec![0.0; 2 * vocab], &[2, vocab as i32]).unwrap();
    // The second is begun before the first is read.
    let queued: Vec<_> = (0..2)
        .map(|_| sample(&logits, turns.clone()).unwrap())
        .collect();
    let mut found = vec![Vec::new(); 2];
    let mut holds = Vec::new();
    for picks in queued {
        for (row, pick) in picks.wait().unwrap().into_iter().enumerate() {
            let pick = pick.unwrap();
            found[row].push(pick.token.id);
            holds.push(pick.hold);
        }
    }
    assert_eq!(holds, [Hold::Held, Hold::Over, Hold::Over, Hold::Over]);
    assert_eq!(tokenizer.decode(&found[0], false).unwrap(), "qz");
    assert_eq!(found[1][1], stop);
}
