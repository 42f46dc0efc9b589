#include "base/library.h"

#include <dlfcn.h>
#include <string.h>

int sw_library_load(const sw_library *l)
{
    void *library = NULL;
    for (const char *const *file = l->files; *file && !library; file++)
        library = dlopen(*file, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return sw_fail("%s, which cannot be loaded (%s)", l->need, dlerror());
    for (size_t i = 0; i < l->count; i++) {
        void *f = dlsym(library, l->functions[i].name);
        if (!f)
            return sw_fail("%s has no function %s", l->name, l->functions[i].name);
        memcpy(l->functions[i].to, &f, sizeof f); /* a function's pointer, which C has no cast for */
    }
    return 0;
}
