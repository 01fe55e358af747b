/**
 * Conditions on events: reading them, and asking them of events.
 *
 * @module
 */
export { compileCondition, type Matcher, type Truth } from "./evaluate.ts";
export { eventField, FIELD_NAMES } from "./fields.ts";
export { type Condition, ConditionError, type Operator, parseCondition } from "./parse.ts";
