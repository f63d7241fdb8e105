/** Says which requests an engine must refuse. Written from the API's promise, not from the engine's code. */

import type { EngineConfig } from '../../contract/config.ts';
import type { ErrorCode } from '../../contract/errors.ts';
import type { EngineRequest } from '../../contract/request.ts';
import type { ScenarioRequest } from '../scenario.ts';

/**
 * Returns the code of the refusal that is due, or `null`; `'either'`: the engine may refuse to keep room for drafts.
 * `isInUse`: another live request has the id.
 */
export function expectedRefusal(
  spec: ScenarioRequest,
  engine: EngineConfig,
  isInUse: boolean,
): ErrorCode | 'either' | null {
  const { blockSize, numBlocks, maxModelLen, numSpeculativeTokens } = engine;
  if (isInUse) return 'DUPLICATE_REQUEST';
  if (spec.prompt.length === 0) return 'EMPTY_PROMPT';
  if (spec.rowsFrom >= spec.prompt.length) return 'PROMPT_START_OUT_OF_RANGE';
  if (spec.prompt.length >= maxModelLen) return 'PROMPT_TOO_LONG';
  const inputs = spec.prompt.length + spec.maxTokens - 1;
  const fits = (numTokens: number): boolean => Math.ceil(Math.min(numTokens, maxModelLen) / blockSize) < numBlocks;
  if (!fits(inputs)) return 'EXCEEDS_POOL';
  return fits(inputs + numSpeculativeTokens) ? null : 'either';
}

/** Says a request in words. */
export function describeRequest({ prompt, maxTokens, rows, rowsFrom, eos, stops }: ScenarioRequest): string {
  return [
    `${prompt.length} prompt tokens`,
    `at most ${maxTokens} more`,
    ...(rows ? [`wants rows${rowsFrom > 0 ? ` from ${rowsFrom}` : ''}`] : []),
    ...(eos === null ? [] : [`EOS ${eos}`]),
    ...(stops.length > 0 ? [`stops ${stops}`] : []),
  ].join(', ');
}

/** Makes the request that a driver hands to the engine. */
export function engineRequest(spec: ScenarioRequest, arrivalTime: number): EngineRequest {
  return {
    requestId: spec.id,
    promptTokenIds: new Uint32Array(spec.prompt),
    sampling: {
      maxTokens: spec.maxTokens,
      minTokens: spec.minTokens,
      eosTokenId: spec.eos,
      stopTokenIds: spec.stops,
      returnRoutedExperts: spec.rows,
      routedExpertsPromptStart: spec.rowsFrom,
    },
    priority: spec.priority,
    arrivalTime,
    cacheSalt: spec.salt,
  };
}
