/* base/point.h: schedule-injection points: named places in the protocols where a stress build may delay a thread.
 *
 * In ordinary builds a point is nothing. With -DCP_POINTS the program supplies cp_point_hook, which may
 * yield, sleep or do nothing; it must not call the library. */
#ifndef CP_BASE_POINT_H
#define CP_BASE_POINT_H

#define CP_POINT_TABLE(X) \
    X(GIVE_FOREIGN_PUSHED) \
    X(TURN_KEEPS) \
    X(AWAIT_SET) \
    X(COLLECT_TAKEN) \
    X(REQUEST_POSTED) \
    X(REQUEST_ENDED) \
    X(REQUEST_GIVEN_UP) \
    X(LOOKS_FURTHER) \
    X(GRANT_DECIDED) \
    X(ASK_POSTED) \
    X(PLAY_BEGUN) \
    X(LEAVE_LOOKED) \
    X(PLAY_ENDED) \
    X(REGISTRY_LEFT)

enum cp_point {
#define CP_POINT_ENUM(name) CP_POINT_##name,
    CP_POINT_TABLE(CP_POINT_ENUM)
#undef CP_POINT_ENUM
    CP_POINTS_TOTAL
};

#ifdef CP_POINTS
void cp_point_hook(enum cp_point point);
#define cp_point(name) cp_point_hook(CP_POINT_##name)
#else
#define cp_point(name) ((void)0)
#endif

#endif
