/**
 * SkyRL's tokens in, tokens out: `/skyrl/v1/generate` is asked for rows, and `/inference/v1/generate` for none. Its
 * reader takes signed types, the narrowest for the ids that are there, and knows no missing row.
 */

import { usualRows } from '../../body/row-fields.ts';
import type { TokensClient } from '../vllm/generate.ts';

export const skyrlWithRows: TokensClient = {
  rows: (_fields, params, { hasRows }) => ({
    wanted: hasRows ? usualRows({ format: 'signed', missing: 'refused' }) : null,
    promptStart: params.whole('routed_experts_prompt_start', 0, Number.MAX_SAFE_INTEGER) ?? 0,
  }),
  fillsContext: true,
};

export const skyrlWithoutRows: TokensClient = {
  rows: () => ({ wanted: null, promptStart: 0 }),
  fillsContext: true,
};
