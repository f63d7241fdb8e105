/** What a request wants of routed experts. */

import { isRowFormat, rowFormats, type RowFormat } from '../../rows/row-formats.ts';
import { badField, type BodyFields } from './body-fields.ts';
import type { JobLimits, KnownRows, MissingRowsRule, RowsWanted } from './generation-job.ts';

/** `promptStart`: the first position whose row is wanted. */
export type RowFields = Readonly<{ wanted: RowsWanted | null; promptStart: number }>;

/** What a dialect returns to a client that says nothing of a form. */
export type UsualRows = Readonly<{ format: RowFormat; missing: MissingRowsRule }>;

const NPY: UsualRows = { format: 'npy', missing: 'said' };

type RowDefaults = Pick<JobLimits, 'isEveryRowReturned'>;

/**
 * `vllm_xargs` of the body, or `extra_args` of sampling parameters, with `return_routed_experts`,
 * `routed_experts_format` and `routed_experts_prompt_start`; the last may also stand in the body itself, where vLLM has
 * it. A client that names a form knows `routed_experts_missing`.
 */
export function readRowFields(
  fields: BodyFields,
  extraName: 'vllm_xargs' | 'extra_args',
  { isEveryRowReturned }: RowDefaults,
  usual: UsualRows = NPY,
): RowFields {
  const extra = fields.object(extraName);
  // vLLM's clients send what its argument type allows, which knows numbers and no booleans.
  const wanted = extra.raw('return_routed_experts') ?? isEveryRowReturned;
  if (typeof wanted !== 'boolean' && wanted !== 0 && wanted !== 1) {
    throw badField(extra.nameOf('return_routed_experts'), wanted, 'true or false');
  }
  const promptStart =
    extra.whole('routed_experts_prompt_start', 0, Number.MAX_SAFE_INTEGER) ??
    fields.whole('routed_experts_prompt_start', 0, Number.MAX_SAFE_INTEGER) ??
    0;
  const form = readForm(extra, usual);
  return { wanted: wanted ? form : null, promptStart };
}

/** The same for `/inference/v1/generate`: in the sampling parameters, or in the body as elsewhere. */
export function readGenerateRowFields(
  fields: BodyFields,
  params: BodyFields,
  defaults: RowDefaults,
  usual: UsualRows = NPY,
): RowFields {
  const inParams = readRowFields(params, 'extra_args', defaults, usual);
  const inBody = readRowFields(fields, 'vllm_xargs', { isEveryRowReturned: false }, usual);
  return { wanted: inBody.wanted ?? inParams.wanted, promptStart: inParams.promptStart || inBody.promptStart };
}

/** SGLang's own fields, in the body. */
export function readSglangRowFields(fields: BodyFields, { isEveryRowReturned }: RowDefaults): RowFields {
  const promptStart = fields.whole('routed_experts_start_len', 0, Number.MAX_SAFE_INTEGER) ?? 0;
  const isWanted = fields.flag('return_routed_experts', isEveryRowReturned);
  return { wanted: isWanted ? usualRows({ format: 'sglang', missing: 'said-unless-aborted' }) : null, promptStart };
}

export function usualRows(usual: UsualRows): RowsWanted {
  return { ...usual, isNamed: false, isCompressed: false, known: null };
}

function readForm(extra: BodyFields, usual: UsualRows): RowsWanted {
  const name = extra.raw('routed_experts_format');
  if (name === undefined) return usualRows(usual);
  const isCompressed = name === 'packed-zstd';
  const format = isCompressed ? 'packed' : name;
  if (!isRowFormat(format)) {
    throw badField(extra.nameOf('routed_experts_format'), name, `one of: ${rowFormats.join(', ')}, packed-zstd`);
  }
  const known = readKnown(extra);
  if (known !== null && format !== 'packed') {
    throw badField(extra.nameOf('routed_experts_known'), known, 'it with the format packed only');
  }
  return { format, missing: 'said', isNamed: true, isCompressed, known };
}

function readKnown(extra: BodyFields): KnownRows | null {
  if (extra.raw('routed_experts_known') === undefined) return null;
  const known = extra.object('routed_experts_known');
  const end = known.whole('end', 0, Number.MAX_SAFE_INTEGER);
  const crc32 = known.whole('crc32', 0, 2 ** 32 - 1);
  if (end !== null && crc32 !== null) return { end, crc32 };
  throw badField(extra.nameOf('routed_experts_known'), known, 'an object with end and crc32');
}

/**
 * Refuses a start behind the prompt, which crashes vLLM. `isEndAllowed`: SGLang's clients may have the rows of the
 * whole prompt.
 */
export function checkPromptStart(
  promptStart: number,
  prompts: readonly Uint32Array[],
  { name, isEndAllowed }: Readonly<{ name: string; isEndAllowed: boolean }>,
): void {
  for (const { length } of prompts) {
    if (promptStart < length || (isEndAllowed && promptStart === length)) continue;
    throw badField(name, promptStart, `a position inside the prompt, in [0, ${length}${isEndAllowed ? ']' : ')'}`);
  }
}
