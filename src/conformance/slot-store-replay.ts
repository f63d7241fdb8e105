/** Replays recordings with vLLM's own capture design, so that the rows of every emission are compared as well. */

import { SlotStoreEngineHalf } from '../capture/slot-store/engine-half.ts';
import { recordedModel, recordedSlotRows } from './recorded-rows.ts';
import type { ReplayOptions } from './replay-schedule.ts';

export const slotStoreReplay: ReplayOptions = {
  capture: (config, rowModel) => new SlotStoreEngineHalf(recordedModel(rowModel), config),
  rows: recordedSlotRows,
};
