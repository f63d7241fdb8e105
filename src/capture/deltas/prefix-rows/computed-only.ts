/** Policy `computed-only` in an engine that also uses KV which others computed. */

import { DeltasEngineHalf } from '../engine-half.ts';

/** The half of the RFC. Rows of KV that came from elsewhere are missing, also where they come with it. */
export class ComputedOnlyEngineHalf extends DeltasEngineHalf {
  acceptsExternalKv(): boolean {
    return true;
  }
}
