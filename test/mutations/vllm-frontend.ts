import type { SourceMutation } from './source-mutation.ts';

const at = (name: string): string => `src/serve/vllm-frontend/${name}`;
const test = (name: string): SourceMutation['killedBy'] => ({ test: `test/serve/vllm-frontend/${name}.test.ts` });
const codec = test('codec.unit');
const session = test('session.unit');
const engine = test('engine.integration');
const frontends = test('frontends.integration');
const storm = test('storm.integration');

export const vllmFrontendMutations: readonly SourceMutation[] = [
  {
    name: 'frontend-call-ids-rounded',
    defect: 'the ids of calls lose their low bits',
    file: at('wire/msgpack.ts'),
    find: 'return decode(bytes, { useBigInt64: true,',
    replace: 'return decode(bytes, { useBigInt64: false,',
    killedBy: session,
  },
  {
    name: 'frontend-array-of-256-bytes-inline',
    defect: 'an array of 256 bytes stands in the message',
    file: at('wire/wire-array.ts'),
    find: 'bytes.length < FRAME_BYTES',
    replace: 'bytes.length <= FRAME_BYTES',
    killedBy: engine,
  },
  {
    name: 'frontend-missing-rows-are-zeros',
    defect: 'a row that is missing is sent as zeros',
    file: at('wire/wire-array.ts'),
    find: 'rows.missing.length > 0 ? fill : 0',
    replace: '0',
    killedBy: codec,
  },
  {
    name: 'frontend-chunk-taken-for-all-rows',
    defect: 'rows in several chunks are sent as their first chunk',
    file: at('wire/wire-array.ts'),
    find: 'piece.count === count && rows.dtype === dtype',
    replace: 'rows.dtype === dtype',
    killedBy: codec,
  },
  {
    name: 'frontend-of-another-version-taken',
    defect: 'a request with fields more or fewer is read as if its order were known',
    file: at('wire/add-request.ts'),
    find: 'if (items.length !== LAYOUT.request.length) {',
    replace: 'if (items.length < LAYOUT.request.length) {',
    killedBy: engine,
  },
  {
    name: 'frontend-cached-prefix-read-anyway',
    defect: 'a request that may not read cached blocks does',
    file: at('wire/add-request.ts'),
    find: 'skipsPrefixCache ? ',
    replace: 'skipsPrefixCache && false ? ',
    killedBy: engine,
  },
  {
    name: 'frontend-pause-lets-requests-in',
    defect: 'a paused engine gets the requests that come',
    file: at('frontend-session.ts'),
    find: 'if (this.#calls.isPaused) this.#held',
    replace: 'if (false as boolean) this.#held',
    killedBy: session,
  },
  {
    name: 'frontend-pause-over-steps-in-flight',
    defect: 'a pause is called complete while steps are in flight',
    file: at('pause.ts'),
    find: "numInFlight === 0 && (mode === 'keep'",
    replace: "numInFlight >= 0 && (mode === 'keep'",
    killedBy: session,
  },
  {
    name: 'frontend-resume-forgets-who-waits',
    defect: 'a pause that a resume cuts short is never replied to',
    file: at('pause.ts'),
    find: 'const cut = this.#pending;',
    replace: 'const cut: PauseRequest[] = [];',
    killedBy: session,
  },
  {
    name: 'frontend-keep-runs-on',
    defect: 'requests that a pause keeps run on',
    file: 'src/worker/pipeline/batch-queue.ts',
    find: ' && !this.#isPaused',
    replace: '',
    killedBy: frontends,
  },
  {
    name: 'frontend-gone-requests-go-on',
    defect: 'requests of an API server that is gone run to their end',
    file: at('frontend-session.ts'),
    find: 'this.#abort(ids.map(([id]) => id));',
    replace: 'void ids;',
    killedBy: session,
  },
  {
    name: 'frontend-repeat-ends-the-first',
    defect: 'a request that comes twice ends the one that runs',
    file: at('frontend-session.ts'),
    find: 'if (this.#live.has(requestId) || this.#held.has(requestId)) {',
    replace: 'if (this.#held.has(requestId)) {',
    killedBy: storm,
  },
  {
    name: 'frontend-dead-before-the-last-outputs',
    defect: 'a dying engine says so, and its last outputs are lost',
    file: at('frontend-session.ts'),
    find: 'while (this.flush(now));',
    replace: '',
    killedBy: frontends,
  },
  {
    name: 'frontend-wave-of-the-excluded',
    defect: 'the engine that asked for a wave is started by it too',
    file: at('waves.ts'),
    find: 'excluded === this.#engineIndex || ',
    replace: '',
    killedBy: session,
  },
  {
    name: 'frontend-ready-for-the-next-one',
    defect: 'READY waits in a closed socket and reaches the next frontend before HELLO',
    file: at('frontend-sockets.ts'),
    find: "handshake.events.on('disconnect', () => handshake.close());",
    replace: 'handshake.linger = 5000; handshake.close();',
    killedBy: frontends,
  },
  {
    name: 'frontend-ranks-from-zero',
    defect: 'the likeliest token has rank 0',
    file: at('made-up-logprobs.ts'),
    find: 'rank: next.rankOf(token) + 1',
    replace: 'rank: next.rankOf(token)',
    killedBy: engine,
  },
  {
    name: 'frontend-prefill-only-at-the-end',
    defect: 'the statistics of the prompt do not come with the first token',
    file: 'src/engine/live-requests.ts',
    find: 'const prefill = isFirst || finishReason !== null ?',
    replace: 'const prefill = finishReason !== null ?',
    killedBy: engine,
  },
];
