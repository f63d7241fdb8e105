// What a softmax needs to know of its row.
struct Stats {
  max: f32,
  // 1 / Σ exp(logit − max), or 1 where the sum cancels.
  scale: f32,
}
