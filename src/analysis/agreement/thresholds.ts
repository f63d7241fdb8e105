/** What a disturbance must explain of B, and what part of the plain comparison's rest. */
export const LEAST_EXPLAINED = 0.9;
export const LEAST_GAIN = 0.5;
