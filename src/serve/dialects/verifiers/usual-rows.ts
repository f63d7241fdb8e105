/**
 * verifiers and prime-rl: rows as an object whose reader knows no mark of a missing row. Its legacy client asks the
 * chat of OpenAI, the newer one vLLM's tokens in, tokens out, from which it wants all that the context leaves.
 */

import { readGenerateRowFields, type UsualRows } from '../../body/row-fields.ts';
import type { TokensClient } from '../vllm/generate.ts';

export const verifiersRows: UsualRows = { format: 'object', missing: 'refused' };

export const verifiersTokens: TokensClient = {
  rows: (fields, params, limits) => readGenerateRowFields(fields, params, limits, verifiersRows),
  fillsContext: true,
};
