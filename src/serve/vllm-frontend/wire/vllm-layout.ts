/**
 * The field orders of vLLM's arrays, a table for each version. vLLM sends structs as arrays without names, and an
 * insertion shifts what follows without a sign. Source: `vllm/v1/engine/__init__.py`.
 */

const REQUEST = [
  'request_id',
  'prompt_token_ids',
  'mm_features',
  'sampling_params',
  'pooling_params',
  'arrival_time',
  'lora_request',
  'cache_salt',
  'data_parallel_rank',
  'prompt_embeds',
  'prompt_is_token_ids',
  'client_index',
  'current_wave',
  'priority',
  'trace_headers',
  'resumable',
  'external_req_id',
  'reasoning_ended',
  'reasoning_parser_kwargs',
  'abort_immediately',
  'session_id',
] as const;

const OUTPUT = [
  'request_id',
  'new_token_ids',
  'new_logprobs',
  'new_prompt_logprobs_tensors',
  'pooling_output',
  'finish_reason',
  'stop_reason',
  'events',
  'kv_transfer_params',
  'ec_transfer_params',
  'trace_headers',
  'prefill_stats',
  'routed_experts',
  'num_nans_in_logits',
  'mm_cache_miss_hashes',
  'new_sampling_mask',
] as const;

const OUTPUTS = [
  'engine_index',
  'outputs',
  'scheduler_stats',
  'timestamp',
  'utility_output',
  'finished_requests',
  'wave_complete',
  'start_wave',
] as const;

/** The names of the fields of a request, and where each stands. */
export type RequestField = (typeof REQUEST)[number];
type OutputField = (typeof OUTPUT)[number];
type OutputsField = (typeof OUTPUTS)[number];

type Layout = Readonly<{
  /** Of vLLM. */
  version: string;
  request: readonly RequestField[];
  output: readonly OutputField[];
  outputs: readonly OutputsField[];
}>;

/** The version that this engine speaks. */
export const LAYOUT: Layout = {
  version: 'main of 2026-08-17 (requests of 21 fields, since 2026-08-03)',
  request: REQUEST,
  output: OUTPUT,
  outputs: OUTPUTS,
};

/** Versions that are known by the number of fields of their requests, and are not spoken. */
const OTHER_VERSIONS: readonly Readonly<{ numFields: number; version: string }>[] = [
  { numFields: 18, version: 'of 2026-05-01 to 2026-05-08' },
  { numFields: 20, version: 'of 2026-05-09 to 2026-08-02' },
];

/** Says which version sends requests of so many fields. Nothing else in the protocol tells it. */
export function versionOf(numFields: number): string {
  const known = OTHER_VERSIONS.find((other) => other.numFields === numFields);
  if (known !== undefined) return known.version;
  if (numFields > LAYOUT.request.length) return 'of a later date than 2026-08-17';
  return 'of a date that is not known here';
}

/** A request by the names of its fields. The array has all of them. */
export function requestFields(items: readonly unknown[]): Readonly<Record<RequestField, unknown>> {
  return Object.fromEntries(LAYOUT.request.map((name, i) => [name, items[i]])) as Record<RequestField, unknown>;
}

/** The array of an `EngineCoreOutput`; what is not given is null. */
export function outputArray(fields: Readonly<Partial<Record<OutputField, unknown>>>): unknown[] {
  return LAYOUT.output.map((name) => fields[name] ?? null);
}

/** The array of an `EngineCoreOutputs`; what is not given is null. */
export function outputsArray(fields: Readonly<Partial<Record<OutputsField, unknown>>>): unknown[] {
  return LAYOUT.outputs.map((name) => fields[name] ?? null);
}
