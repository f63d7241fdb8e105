/** Whether a loaded request has lost its blocks to another: the scheduler tells nobody, but its plan shows it. */

import type { CaptureRequest } from '../../contract/request.ts';
import { RequestKind, type SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { TrackedRequest } from './tracked-request.ts';

/** `view`: the request as it is behind the planning. `plan`: `null` if there was nothing to plan. */
export function isGivenBack(
  request: TrackedRequest,
  view: CaptureRequest,
  plan: SchedulerOutput | null,
  blockSize: number,
): boolean {
  const { blocks, numLoaded } = request;
  const { blockIds } = view;
  if (blocks.length > blockIds.length || blocks.some((id, i) => blockIds[i] !== id)) return true;
  if (plan === null) return false;
  // A request that is given the very same blocks again starts at another position in them, or hits one that another
  // request was given in between.
  const at = plan.requestIndices.subarray(0, plan.numRequests).indexOf(request.index);
  return at >= 0 && (plan.numComputedTokens[at] !== numLoaded || isTaken(blocks, plan, at, blockSize));
}

/** Whether the plan gives one of the blocks to another request, and not for what is in it. */
function isTaken(blocks: readonly number[], plan: SchedulerOutput, own: number, blockSize: number): boolean {
  for (let i = 0; i < plan.numRequests; i += 1) {
    if (i === own) continue;
    const numHits = plan.kinds[i] === RequestKind.running ? 0 : Math.ceil(plan.numComputedTokens[i]! / blockSize);
    const given = plan.newBlockIds.subarray(plan.newBlockOffsets[i]! + numHits, plan.newBlockOffsets[i + 1]);
    if (given.some((id) => blocks.includes(id))) return true;
  }
  return false;
}
