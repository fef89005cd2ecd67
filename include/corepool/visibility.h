/* corepool/visibility.h: marks the exported symbols; everything else in the library is hidden. */
#ifndef COREPOOL_VISIBILITY_H
#define COREPOOL_VISIBILITY_H

#define COREPOOL_PUBLIC __attribute__((visibility("default")))

#endif
