/** Which requests of a workload opt in to routed experts. */

import { numberWithin } from './checks.ts';
import { random } from './random.ts';
import type { Workload } from './workload.ts';

/**
 * Returns, for each request of the workload in its order, whether it opts in: exactly `round(share · n)` of the n do,
 * spread over the workload by a permutation that the seed fixes. Under one seed a larger share only adds requests to a
 * smaller one's.
 *
 * @param share in [0, 1]
 * @throws BAD_VALUE for a share outside [0, 1] or a seed that is not a whole number ≥ 0
 */
export function optIn(workload: Workload, share: number, seed: number): readonly boolean[] {
  numberWithin('share', share, 0, 1);
  const numRequests = workload.requests.length;
  const order = random(seed, 'opt-in').permutation(numRequests);
  const optedIn = Array.from({ length: numRequests }, () => false);
  for (const request of order.subarray(0, Math.round(share * numRequests))) optedIn[request] = true;
  return optedIn;
}
