// Verifies drafts, samples the next token, proposes the next drafts. A thread a request: a handful of hashes each.

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> hidden: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> sampled: array<u32>;
@group(0) @binding(3) var<storage, read_write> lastTokens: array<u32>;

const STRIDE: u32 = 2u + 2u * NUM_SPECULATIVE_TOKENS;

fn nextToken(hidden: vec2u) -> u32 {
  return scramble(hidden.x ^ (hidden.y * 0x9e3779b1u)) % VOCAB_SIZE;
}

fn draftToken(hidden: vec2u, truth: u32) -> u32 {
  let dice = scramble(hidden.y ^ (hidden.x * 0x85ebca6bu));
  if (dice >= WRONG_DRAFTS_BELOW) {
    return truth;
  }
  return (truth + 1u + dice % (VOCAB_SIZE - 1u)) % VOCAB_SIZE;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let ordinal = id.x;
  if (ordinal >= stepInput[H_NUM_REQUESTS]) {
    return;
  }
  let request = stepInput[H_REQUESTS] + REQUEST_WORDS * ordinal;
  let record = ordinal * STRIDE;
  if (stepInput[request + R_SAMPLES] == 0u) {
    sampled[record] = 0u;
    return;
  }
  let numDrafts = stepInput[request + R_NUM_DRAFTS];
  let tail = stepInput[request + R_TOKEN_COUNT] - 1u - numDrafts;
  let firstRow = stepInput[request + R_ROW_START] + tail;
  let last = stepInput[request + R_BATCH_SLOT] * (1u + NUM_SPECULATIVE_TOKENS);

  var accepted = 0u;
  var token = 0u;
  loop {
    let row = firstRow + accepted;
    token = nextToken(hidden[row].xy);
    sampled[record + 1u + accepted] = token;
    if (accepted == numDrafts) {
      break;
    }
    var draft = stepInput[HEADER_WORDS + row + 1u];
    if (draft == FROM_DEVICE) {
      draft = lastTokens[last + accepted + 1u];
    }
    if (draft != token) {
      break;
    }
    accepted += 1u;
  }
  sampled[record] = accepted + 1u;
  lastTokens[last] = token;

  let position = stepInput[request + R_TOKEN_START] + tail + accepted + 1u;
  var sum = hidden[firstRow + accepted].zw;
  for (var ahead = 0u; ahead < NUM_SPECULATIVE_TOKENS; ahead++) {
    sum += termOf(keyOf(token, position + ahead, stepInput[H_EPOCH]), position + ahead);
    let state = hiddenOf(sum);
    token = nextToken(state);
    let draft = draftToken(state, token);
    sampled[record + 2u + NUM_SPECULATIVE_TOKENS + ahead] = draft;
    lastTokens[last + 1u + ahead] = draft;
  }
}
