// The digest that stands in for attention. A workgroup a request: its threads sum the old positions in strides and the new tokens in runs,
// meet once, and then each walks its run again with the sum of all that lies before it.
//
//     position   0 ─────────────── tokenStart ──────── tokenStart + tokenCount
//     thread     0 1 2 … 0 1 2 … │ 0 0 0 1 1 1 2 2 2 …
//                sum of terms    │ prefix sums of terms → hidden

@group(0) @binding(0) var<storage, read> stepInput: array<u32>;
@group(0) @binding(1) var<storage, read> kvKeys: array<vec2u>;
@group(0) @binding(2) var<storage, read> blockTable: array<u32>;
@group(0) @binding(3) var<storage, read_write> hidden: array<vec4u>;

// Per thread: sum of its old positions (xy), sum of its run of new tokens (zw).
var<workgroup> partial: array<vec4u, ATTEND_THREADS>;

fn termAt(table: u32, position: u32) -> vec2u {
  let slot = blockTable[table + position / BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE;
  return termOf(kvKeys[slot], position);
}

@compute @workgroup_size(ATTEND_THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let request = stepInput[H_REQUESTS] + REQUEST_WORDS * group.x;
  let table = stepInput[request + R_BATCH_SLOT] * MAX_BLOCKS_PER_SEQ;
  let tokenStart = stepInput[request + R_TOKEN_START];
  let tokenCount = stepInput[request + R_TOKEN_COUNT];
  let rowStart = stepInput[request + R_ROW_START];

  var old = vec2u(0u);
  for (var position = thread; position < tokenStart; position += ATTEND_THREADS) {
    old += termAt(table, position);
  }
  let run = (tokenCount + ATTEND_THREADS - 1u) / ATTEND_THREADS;
  let runStart = min(thread * run, tokenCount);
  let runEnd = min(runStart + run, tokenCount);
  var fresh = vec2u(0u);
  for (var i = runStart; i < runEnd; i++) {
    fresh += termAt(table, tokenStart + i);
  }
  partial[thread] = vec4u(old, fresh);
  workgroupBarrier();

  if (runStart == runEnd) {
    return;
  }
  var sum = vec2u(0u);
  for (var other = 0u; other < ATTEND_THREADS; other++) {
    let part = partial[other];
    sum += part.xy + select(vec2u(0u), part.zw, other < thread);
  }
  for (var i = runStart; i < runEnd; i++) {
    sum += termAt(table, tokenStart + i);
    hidden[rowStart + i] = vec4u(hiddenOf(sum), sum);
  }
}
